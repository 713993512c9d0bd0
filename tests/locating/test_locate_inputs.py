"""Arguments of every kind: a value that was non-finite on arrival is the origin, named by its path; the others go through untouched."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd

NAN = jnp.float32(jnp.nan)


def test_nan_argument_is_the_origin_by_its_path(xs):
    report = nd.locate(jax.jit(lambda params, x: (params["w"] * x).sum()), {"w": xs.at[1].set(jnp.nan)}, xs)
    assert report is not None
    origin = report.origin
    assert (origin.primitive, origin.argument, origin.value, origin.phase) == ("<input>", "params['w']", "nan", "forward")
    assert (origin.source, origin.index, origin.count, origin.size) == (None, (1,), 1, 3)


def test_inf_argument_that_was_computed_with_is_the_origin(xs):
    report = nd.locate(jax.jit(lambda w, x: (w * x).sum()), xs + 1, xs.at[0].set(jnp.inf))
    assert report is not None
    assert (report.origin.primitive, report.origin.argument, report.origin.value) == ("<input>", "x", "inf")


def test_mask_of_minus_inf_that_was_given_is_not_to_blame_for_what_made_nan_of_it(find, xs):
    def f(x, mask):
        scores = x + mask
        return jnp.exp(scores - scores.max())  # <-- origin

    assert find(f, xs, jnp.full(3, -jnp.inf)).origin.primitive == "sub"


def test_chain_from_an_input_starts_where_it_was_first_computed_with(xs):
    report = nd.locate(jax.jit(lambda x: jnp.sum(2 * x)), xs.at[0].set(jnp.nan))
    assert report is not None
    assert [event.primitive for event in report.chain] == ["<input>", "mul", "reduce_sum"]


def test_keyword_and_nested_paths_are_named(xs):
    report = nd.locate(jax.jit(lambda x, *, y: x + y["k"][1]), xs, y={"k": (1.0, NAN)})
    assert report is not None
    assert report.origin.argument == "y['k'][1]"


def test_path_is_named_without_a_jit_as_well():
    report = nd.locate(lambda p, x: x[1]["a"] * p, 2.0, (None, {"a": np.float32(np.nan)}, "name"))
    assert report is not None
    assert (report.origin.primitive, report.origin.argument) == ("<input>", "x[1]['a']")


def test_nan_row_of_a_batch_in_a_scan_is_an_input_and_not_a_birth(xs):
    f = jax.jit(lambda w, xs: jax.lax.scan(lambda c, x: (c + w * x, None), 0.0, xs)[0])
    report = nd.locate(f, jnp.float32(1), xs.at[2].set(jnp.nan))
    assert report is not None
    assert (report.origin.primitive, report.origin.argument, report.origin.index) == ("<input>", "xs", (2,))


def test_nan_in_the_batch_of_a_training_step_is_the_batch(xs):
    f = jax.jit(jax.value_and_grad(lambda w, batch: jnp.mean((w * batch["x"] - batch["y"]) ** 2)))
    report = nd.locate(f, jnp.float32(1), {"x": xs.at[0].set(jnp.nan), "y": xs})
    assert report is not None
    assert (report.origin.primitive, report.origin.argument) == ("<input>", "batch['x']")
    assert set(report.symptoms) == {"[0]", "[1]"}


@pytest.mark.parametrize(
    "build",
    [
        lambda c: lambda x: x * c,
        lambda c: lambda x: jax.jit(lambda y: y * c)(x) + 1,
        lambda c: lambda x: jax.lax.scan(lambda a, _: (a * c, None), x, None, length=3)[0],
        lambda c: jax.value_and_grad(lambda x: jnp.sum(x * c)),
    ],
    ids=["plain", "inner jit", "scan", "value_and_grad"],
)
@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_nan_that_the_step_closes_over_was_there_on_arrival(build, array):
    step = build(array([1.0, np.nan], np.float32))
    report = nd.locate(jax.jit(lambda x: step(x)), jnp.ones(2))
    assert report is not None
    assert (report.origin.primitive, report.origin.value, report.origin.index) == ("<input>", "nan", (1,))


def test_nan_that_was_written_down_is_found_where_it_was_written(find, xs):
    f = jax.jit(lambda x: jnp.where(x > 0, x, jnp.nan))  # <-- origin
    assert find(f, xs).origin.value == "nan"


def test_none_and_python_numbers_are_arguments(find):
    f = jax.jit(lambda t: {"a": None, "b": jnp.log(t[0]) * t[2]})  # <-- origin
    assert find(f, (0.0, None, 3)).symptoms == ("['b']",)


def test_anything_goes_into_a_step_that_is_not_jitted(find):
    def f(t, flag, name):
        return (jnp.log(t[0]) * t[2], name) if flag else name  # <-- origin

    assert find(f, (jnp.float32(0), None, 3), True, "hi").origin.primitive == "log"


def test_python_number_may_decide_a_branch_of_a_step_that_is_not_jitted(find, xs):
    def f(x, threshold):
        if threshold > 1.0:
            return jnp.log(x)  # <-- origin
        return x

    assert find(f, xs, 2.0).origin.primitive == "log"


@pytest.mark.parametrize(
    ("options", "arguments", "keywords"),
    [
        ({"static_argnums": 1}, (2,), {}),
        ({"static_argnums": -1}, (2,), {}),
        ({"static_argnames": "n"}, (2,), {}),
        ({"static_argnames": ("n",)}, (), {"n": 2}),
        ({"static_argnums": (1,), "static_argnames": ("n",)}, (2,), {}),
    ],
)
def test_static_arguments_stay_static(find, xs, options, arguments, keywords):
    def f(x, n):
        for _ in range(n):
            x = jnp.abs(x)
        return jnp.log(x)  # <-- origin

    assert find(jax.jit(f, **options), xs, *arguments, **keywords).origin.index == (1,)


@pytest.mark.parametrize("kind", [jax.random.key, jax.random.PRNGKey])
def test_random_keys_are_arguments_typed_or_raw(find, xs, kind):
    f = jax.jit(lambda key, x: jnp.log(x * jax.random.uniform(key, (3,), minval=0.5)))  # <-- origin
    assert find(f, kind(0), xs).origin.index == (1,)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable:UserWarning")
def test_donated_arguments_stay_alive_and_unchanged(find, xs):
    step = functools.partial(jax.jit, donate_argnums=(0,), donate_argnames=("scale",))
    f = step(lambda state, scale: {"a": jnp.log(state["a"]) * scale, "key": state["key"]})  # <-- origin
    state, scale = {"a": xs + 0, "key": jax.random.key(1)}, jnp.float32(1) + 0
    find(f, state, scale=scale)
    assert nd.locate(f, {**state, "a": xs + 1}, scale=scale) is None
    assert not state["a"].is_deleted() and not scale.is_deleted() and not state["key"].is_deleted()
    np.testing.assert_array_equal(state["a"], [1, 0, 2])


def test_numpy_arrays_are_arguments(find):
    f = jax.jit(lambda x: jnp.log(x))  # <-- origin
    assert find(f, np.array([0.0, 1.0])).origin.dtype == "float32"


def test_steps_own_exception_reaches_the_caller(xs):
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nd.locate(f, xs)


def test_what_is_not_a_function_is_a_usage_error(xs):
    with pytest.raises(nd.UsageError, match="int"):
        nd.locate(3, xs)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("function", [jax.jit(lambda a, b: a @ b), lambda a, b: a @ b, jax.jit(jnp.log).lower(1.0).compile()])
def test_arguments_that_do_not_fit_are_a_usage_error(function, xs):
    with pytest.raises(nd.UsageError):
        nd.locate(function, xs)


def test_jaxs_own_checks_do_not_stand_in_the_way(find, xs):
    f = jax.jit(lambda x: jnp.sqrt(-x))  # <-- origin
    with jax.debug_nans(True), jax.debug_infs(True):
        assert find(f, xs).origin.index == (0,)


@jax.tree_util.register_pytree_node_class
class Pair:
    """A pytree class of the old kind: it has leaves, and no keys for them."""

    def __init__(self, *parts):
        self.parts = parts

    def tree_flatten(self):
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(*parts)


@pytest.mark.parametrize("wrap", [jax.jit, lambda f: f])
def test_leaves_of_a_class_without_keys_are_numbered(xs, wrap):
    report = nd.locate(wrap(lambda pair: Pair(pair.parts[0], jnp.log(-pair.parts[1]))), Pair(xs, xs + 1))
    assert report is not None
    assert report.symptoms == ("[1]",)
