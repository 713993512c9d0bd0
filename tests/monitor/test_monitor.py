"""`nd.Monitor`: what it measures, against numpy; from inside and outside of compiled functions; read late and kept within bounds."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

import nandetect as nd
from nandetect import optax_health
from nandetect.errors import UsageError
from nandetect.monitor.in_step import LeafArrays, full, light
from nandetect.monitor.points import Points, history
from nandetect.monitor.vitals import LAYERS, MISSING, WHOLE, is_full
from nandetect.train.optimizers import adam
from nandetect.train.step import make_step

NAN, INF = np.nan, np.inf


def row(**given):
    """A full measure of one leaf, by name."""
    numbers = np.asarray(jax.jit(full)([LeafArrays(**{name: jnp.asarray(value) for name, value in given.items()})]))
    return {name: None if number == np.float32(MISSING) else float(number) for name, number in zip((*WHOLE, *LAYERS), numbers, strict=True)}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn", "complex64"])
def test_what_is_measured_is_what_numpy_measures(dtype):
    rng = np.random.default_rng(0)
    grad, param, update, before = (jnp.asarray(rng.normal(size=(6, 5)), dtype) for _ in range(4))
    grad = grad.at[:, 2].set(0)
    found = row(grad=grad, param=param, update=update, before=before)
    g, p, u, b = (np.asarray(x).astype(np.complex128) for x in (grad, param, update, before))
    assert found["gradient"] == pytest.approx(np.linalg.norm(g), rel=1e-5)
    assert found["gradient_max"] == pytest.approx(np.abs(g).max(), rel=1e-6)
    assert (found["gradient_zero"], found["gradient_idle"]) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (found["gradient_nonfinite"], found["weight_nonfinite"]) == (0, 0)
    assert (found["weight"], found["update"]) == (pytest.approx(np.linalg.norm(p), rel=1e-5), pytest.approx(np.linalg.norm(u), rel=1e-5))
    assert found["along"] == pytest.approx((g * u).sum().real, rel=1e-4)
    assert found["along_before"] == pytest.approx((g * b).sum().real, rel=1e-4)


def test_large_and_small_gradients_neither_overflow_nor_vanish():
    assert row(grad=[3e30, 4e30])["gradient"] == pytest.approx(5e30)
    assert row(grad=[3e-30, 4e-30])["gradient"] == pytest.approx(5e-30)
    assert row(grad=np.full((64, 64), 60000, np.float16))["gradient"] == pytest.approx(60000 * 64, rel=1e-3)


def test_what_is_not_finite_is_counted_and_left_out_of_the_norm():
    found = row(grad=[3.0, NAN, 4.0, INF], param=[1.0, NAN, 2.0, 3.0])
    assert (found["gradient"], found["gradient_nonfinite"], found["weight_nonfinite"], found["weight_max"]) == (5, 2, 1, None)


def test_a_light_measure_tells_an_overflow_of_the_square_from_a_gradient_that_is_not_finite():
    grads = [jnp.array([3.0, 4.0]), jnp.array([NAN]), jnp.array([1e30]), jnp.array([INF], jnp.float16)]
    squares = np.asarray(light([LeafArrays(grad=grad) for grad in grads]))
    assert squares.tolist() == [25, -1, np.finfo(np.float32).max, -1]


def test_subnormal_gradients_of_a_narrow_dtype_are_a_share_of_their_own():
    found = row(grad=np.array([1e-7, 1e-3, 0, 1], np.float16))
    assert (found["gradient_tiny"], found["gradient_zero"]) == (0.25, 0.25)


def test_an_update_that_rounding_swallows_leaves_the_parameters_as_they_are():
    found = row(param=jnp.ones(4, jnp.bfloat16), update=jnp.array([1e-4, 1e-4, 0.5, 0.5], jnp.bfloat16))
    assert found["update"] is not None
    assert (found["update_zero"], found["update"] > 0) == (0.5, True)


def observed(monitor, steps):
    """Takes `steps` steps of gradient descent on (w - 3)^2, each observed by the monitor."""
    w = jnp.zeros((2, 2))
    for _ in range(steps):
        grads = 2 * (w - 3)
        updates = -0.1 * grads
        loss = jnp.sum((w - 3) ** 2)
        monitor.observe(params={"a": {"w": w}}, grads={"a": {"w": grads}}, updates={"a": {"w": updates}}, loss=loss)
        w = w + updates
    return monitor.history()


def test_a_run_observed_from_outside_has_every_step_with_its_loss_and_gradient():
    run = observed(nd.Monitor(), 150)
    truth = 36 * 0.64 ** np.arange(150)
    sound = truth > 1e-6
    assert run.steps.tolist() == list(range(150))
    assert [(leaf.path, leaf.shape, leaf.dtype) for leaf in run.leaves] == [("a.w", (2, 2), "float32")]
    np.testing.assert_allclose(run.series["loss"][sound], truth[sound], rtol=1e-2)
    np.testing.assert_allclose(run.series["gradient"][sound], 2 * np.sqrt(truth[sound]), rtol=1e-2)


def test_everything_is_measured_as_planned_and_the_step_before_is_known():
    run = observed(nd.Monitor(), 60)
    measured = ~np.isnan(run.layers["weight"][:, 0])
    assert measured.tolist() == [bool(is_full(step)) for step in range(60)]
    assert np.isnan(run.series["along_before"][0])
    # The gradient at step 1 is 0.8 of that at step 0; the update of step 0 is -0.1 of its gradient.
    assert run.series["along_before"][1] == pytest.approx(-0.1 * 0.8 * 36 * 4)


def test_without_updates_their_size_comes_from_the_parameters():
    monitor = nd.Monitor()
    for step in range(4):
        monitor.observe(params={"w": jnp.full(4, float(step))})
    np.testing.assert_array_equal(monitor.history().layers["update"][:, 0], [NAN, 2, 2, 2])


def test_after_a_gradient_that_is_not_finite_everything_is_measured():
    monitor = nd.Monitor()
    for step in range(450):
        monitor.observe(params={"w": jnp.ones(3)}, grads={"w": jnp.array([1.0, NAN if step == 430 else 1.0, 1.0])})
        if step == 430:
            monitor.history()
    run = monitor.history()
    assert run.layers["gradient_nonfinite"][430, 0] == 1
    assert not np.isnan(run.layers["weight"][431:450, 0]).any()


def test_leaves_that_are_no_numbers_are_passed_over():
    params = {"w": jnp.ones(2), "n": jnp.int32(3), "key": jax.random.key(0), "f": jax.nn.relu, "none": None}
    monitor = nd.Monitor()
    monitor.observe(params=params, grads={**params, "n": None, "key": None, "f": None})
    assert [leaf.path for leaf in monitor.history().leaves] == ["w"]


def loss_and_note(monitor):
    def f(w, x):
        value = jnp.sum((w * x) ** 2)
        monitor.observe(grads={"w": 2 * w * x * x}, loss=value)
        return value

    return f


W, X = jnp.ones(3), jnp.array([1.0, 2.0, 3.0])
INSIDE = {
    "jit": (lambda f: jax.jit(f)(W, 2.0), [12.0]),
    "grad": (lambda f: jax.jit(jax.grad(f))(W, 2.0), [12.0]),
    "scan": (lambda f: jax.jit(lambda: lax.scan(lambda c, x: (c, f(c, x)), W, X))(), [3.0, 12.0, 27.0]),
    "while": (lambda f: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, f(W, c[0])), (1.0, 0.0)), [3.0, 12.0]),
    "cond": (lambda f: jax.jit(lambda x: lax.cond(x > 0, lambda: f(W, x), lambda: 0.0))(2.0), [12.0]),
    "vmap": (lambda f: jax.jit(jax.vmap(f, (None, 0)))(W, X), [14.0]),
    "vmap of grad": (lambda f: jax.vmap(jax.grad(f), (None, 0))(W, X), [14.0]),
    "vmap of scan": (lambda f: jax.vmap(lambda x: lax.scan(lambda c, _: (c, f(W, x)), 0.0, X[:2]))(X), [14.0, 14.0]),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_step_is_observed_from_inside(name):
    program, losses = INSIDE[name]
    monitor = nd.Monitor()
    jax.block_until_ready(program(loss_and_note(monitor)))
    run = monitor.history()
    assert run.steps.tolist() == list(range(len(losses)))
    np.testing.assert_allclose(run.series["loss"], losses)


def test_a_batch_counts_all_that_is_not_finite_in_it():
    monitor = nd.Monitor()
    jax.vmap(lambda x: monitor.observe(grads={"w": x * jnp.ones(2)}))(jnp.array([1.0, NAN, INF, 3.0]))
    run = monitor.history()
    assert (run.layers["gradient_nonfinite"][0, 0], run.layers["gradient_max"][0, 0]) == (4, 3)


def test_inside_a_loop_that_knows_its_step_most_steps_are_measured_lightly():
    monitor = nd.Monitor()

    def body(i, w):
        monitor.observe(params={"w": w}, grads={"w": w}, step=i)
        return w * 1.01

    jax.block_until_ready(jax.jit(lambda w: lax.fori_loop(0, 45, body, w))(W))
    run = monitor.history()
    assert (~np.isnan(run.layers["weight"][:, 0])).tolist() == [bool(is_full(step)) for step in range(45)]
    np.testing.assert_allclose(run.series["gradient"], np.sqrt(3) * 1.01 ** np.arange(45), rtol=1e-4)


def test_shard_map_is_refused_in_one_line():
    mesh = jax.make_mesh((1,), ("i",))
    monitor = nd.Monitor()

    def body(x):
        monitor.observe(grads=x)
        return x

    x = jax.device_put(jnp.ones(2), jax.sharding.NamedSharding(mesh, PartitionSpec("i")))
    with pytest.raises(UsageError, match="inside shard_map over i each device sees its own part"):
        jax.shard_map(body, mesh=mesh, in_specs=PartitionSpec("i"), out_specs=PartitionSpec("i"))(x)


def test_a_guard_that_runs_steps_again_does_not_observe_them_again():
    monitor = nd.Monitor()

    def step(w, x):
        monitor.observe(grads={"w": w / x}, loss=jnp.sum(w / x))
        return w / x

    guarded = nd.guard(jax.jit(step))
    w = W
    with pytest.raises(nd.NonFiniteError) as error:
        for x in (2.0, 1.0, 0.0, 1.0):
            w = guarded(w, x)
        guarded.flush()
    assert (error.value.report.step, error.value.report.origin.primitive) == (2, "div")
    run = monitor.history()
    assert run.steps.tolist() == [0, 1, 2, 3]
    assert run.layers["gradient_nonfinite"][:, 0].tolist() == [0, 0, 3, 3]


def test_threads_share_a_monitor():
    monitor = nd.Monitor()

    def work():
        for _ in range(100):
            monitor.observe(grads={"w": W}, loss=1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(monitor.history().steps.tolist()) == list(range(400))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": jnp.ones(2)}, "the metric `loss` is an array of shape (2,): give one number for each step"),
        ({"name": "x"}, "the metric `name` is a str: give one number for each step"),
        ({"gradient": 1.0}, "a metric cannot be called `gradient`"),
        ({"grads": {"v": W}}, "`grads` holds `v`, which this monitor has not seen before: use one Monitor for each model"),
        ({"grads": {"w": jnp.ones(4)}}, "`w` in `grads` has the shape (4,), and before (3,): use one Monitor for each model"),
        ({"opt_state": (1.0,)}, "`opt_state` holds 0 states of `optax_health.watch`"),
    ],
)
def test_what_cannot_be_observed_is_refused_in_one_line(given, said):
    monitor = nd.Monitor()
    monitor.observe(params={"w": W, "n": None})
    with pytest.raises(UsageError) as error:
        monitor.observe(**given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_metric_that_was_given_as_nan_is_not_one_that_was_not_given():
    monitor = nd.Monitor()
    monitor.observe(loss=jnp.float32(NAN))
    monitor.observe(accuracy=0.5)
    np.testing.assert_array_equal(monitor.history().series["loss"], [INF, NAN])


def test_whoever_asks_gets_each_part_once_and_in_order():
    monitor, parts = nd.Monitor(), []
    monitor.sinks.append(parts.append)
    observed(monitor, 150)
    assert np.concatenate([part.steps for part in parts]).tolist() == list(range(150))


def test_a_long_run_is_thinned_and_keeps_its_extremes():
    leaves = observed(nd.Monitor(), 1).leaves
    points, rng = Points(most_bytes=200_000), np.random.default_rng(0)
    losses = rng.normal(size=40_000).astype(np.float32)
    losses[[7_003, 20_011]] = 1e6, -1e6
    for start in range(0, 40_000, 64):
        steps = np.arange(start, min(start + 64, 40_000))
        vitals = np.zeros((len(steps), len(WHOLE) + len(LAYERS)), np.float32)
        vitals[:, len(WHOLE) + list(LAYERS).index("gradient_nonfinite")] = steps == 9_001
        points.add(history(leaves, steps, {"loss": losses[steps]}, vitals))
    run = points.history()
    assert len(run) < 4_000
    assert {0, 1, 7_003, 9_001, 20_011, 39_999} <= set(run.steps.tolist())
    assert (np.diff(run.steps) > 0).all()
    assert run.steps[-500:].tolist() == list(range(39_500, 40_000))


def linear(params, inputs):
    return inputs @ params["w"] + params["b"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_measuring_changes_no_bit_of_what_is_trained(dtype):
    inputs, labels = jax.random.normal(jax.random.key(0), (16, 8), dtype), jax.nn.one_hot(jnp.arange(16) % 3, 3, dtype=dtype)
    params = {"w": jax.random.normal(jax.random.key(1), (8, 3), dtype), "b": jnp.zeros(3, dtype)}
    optimizer = adam(1e-2)
    step = make_step(linear, lambda logits, labels: -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), -1)), optimizer)
    plain, watched = jax.jit(step), jax.jit(step, static_argnames=("full",))
    here = there = (params, optimizer.init(params))
    for number in range(10):
        *here, _ = plain(*here, inputs, labels)
        *there, metrics = watched(*there, inputs, labels, params, number % 2 == 0)
        assert np.isfinite(np.asarray(metrics["vitals"])).all()
    for one, two in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()


def test_an_optimizer_that_is_watched_keeps_its_vitals_in_its_state():
    optax = pytest.importorskip("optax")
    optimizer = optax_health.watch(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)))
    params = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(lambda params: jnp.sum((params["w"] + params["b"]) ** 2))(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), (value, optax_health.vitals(state))

    monitor, carry = nd.Monitor(), (params, optimizer.init(params))
    one = jax.jit(lambda carry: step(carry, None), donate_argnums=0)
    for _ in range(3):
        carry, (value, _) = one(carry)
        monitor.observe(opt_state=carry[1], loss=value)
    carry, (values, vitals) = jax.jit(lambda carry: lax.scan(step, carry, None, length=30))(carry)
    monitor.observe(opt_state=vitals, loss=values)
    run = monitor.history()
    assert run.steps.tolist() == list(range(33))
    assert [leaf.path for leaf in run.leaves] == ["b", "w"]
    # At the start 4 for each bias and 2 for each weight; the clip leaves a step of 0.1.
    np.testing.assert_allclose(run.layers["gradient"][0], [np.sqrt(2 * 4**2), np.sqrt(4 * 2**2)], rtol=1e-6)
    assert run.series["update"][0] == pytest.approx(0.1, rel=1e-5)
    assert (~np.isnan(run.layers["weight"][:, 0])).tolist() == [bool(is_full(number)) for number in range(33)]
