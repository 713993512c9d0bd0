"""`probe`: what it counts, against numpy in float64; that it changes nothing; and that it goes wherever JAX goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nandetect as nd
from nandetect import health as module

NAN, INF = np.nan, np.inf
MIXED = [[1.0, NAN, -2500.0], [INF, -INF, 0.0]]
LARGEST = float(np.finfo(np.float32).max)


def told(health):
    """The four numbers, which must be scalars of the types that they always have."""
    fields = (health.nan, health.inf, health.size, health.largest)
    assert [(field.shape, field.dtype, field.weak_type) for field in fields] == [((), np.uint32, False)] * 3 + [((), np.float32, False)]
    return tuple(field.item() for field in fields)


def truth(array):
    """The four numbers of a health, by numpy in double precision."""
    array = np.asarray(array).astype(np.complex128)
    nan, finite = np.isnan(array), np.isfinite(array)
    largest = np.abs(array[finite]).max(initial=0)
    return int(nan.sum()), int((~nan & ~finite).sum()), array.size, float(np.float32(largest))


def identity(x):
    return x


def same_bits(one, other):
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3b11fnuz", "complex64"])
def test_every_floating_and_complex_dtype_is_counted_as_numpy_counts_it(dtype):
    x = jnp.array(MIXED).astype(dtype)
    assert told(nd.Health.of(x)) == truth(x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_64_bit_numbers_are_counted_in_the_same_types(dtype):
    x = jnp.array(MIXED, dtype)
    assert told(nd.Health.of(x) | nd.Health.of(None)) == truth(x)


@pytest.mark.usefixtures("x64")
def test_a_magnitude_beyond_float32_is_the_largest_float32():
    assert told(nd.Health.of(jnp.array([1e300, 1.0]))) == (0, 0, 2, LARGEST)


def test_a_finite_complex_number_of_overflowing_magnitude_is_finite():
    assert told(nd.Health.of(jnp.array([3e38 + 3e38j]))) == (0, 0, 1, LARGEST)


def test_a_complex_number_that_is_nan_and_infinite_is_counted_once():
    assert told(nd.Health.of(jnp.array([complex(NAN, INF), complex(INF, 0)]))) == (1, 1, 2, 0.0)


def test_leaves_that_are_no_floating_arrays_are_passed_over():
    others = [jnp.arange(3), True, None, jax.random.key(0), print, "text", jnp.array([True])]
    assert told(nd.Health.of({"x": jnp.array([NAN]), "others": others})) == (1, 0, 1, 0.0)


def test_an_equinox_module_is_looked_into_and_its_functions_are_passed_over():
    eqx = pytest.importorskip("equinox")
    mlp = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    assert told(nd.Health.of(mlp))[:3] == (0, 0, (2 * 4 + 4) + (4 * 3 + 3))


@pytest.mark.parametrize("nothing", [None, [], jnp.arange(3), {"a": 1}])
def test_what_holds_no_floating_number_is_finite(nothing):
    health = nd.Health.of(nothing)
    assert (told(health), bool(health.finite)) == ((0, 0, 0, 0.0), True)


def test_an_array_without_elements_is_finite():
    assert told(nd.Health.of(jnp.ones((0, 3)))) == (0, 0, 0, 0.0)


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (NAN, False), (INF, False), (-INF, False)])
def test_finite_says_whether_every_number_is(value, finite):
    assert bool(nd.Health.of([jnp.ones(3), jnp.array(value)]).finite) is finite


def test_the_health_of_two_together_is_that_of_both():
    one, other = jnp.array(MIXED), jnp.array([5000.0, NAN])
    both = np.concatenate([np.ravel(one), other])
    assert told(nd.Health.of(one) | nd.Health.of(other)) == told(nd.Health.merge(nd.Health.of(one), nd.Health.of(other))) == truth(both)


def test_counts_stay_at_the_largest_uint32():
    many = jnp.uint32(2**31 + 5)
    half = nd.Health(many, jnp.uint32(2**31), jnp.uint32(2**32 - 1), jnp.float32(1))
    assert told(half | half) == (2**32 - 1, 2**32 - 1, 2**32 - 1, 1.0)
    assert told(half | nd.Health.of(jnp.array([NAN])))[0] == 2**31 + 6


def test_an_array_of_more_elements_than_uint32_counts_is_counted_in_floats(monkeypatch):
    huge = jax.eval_shape(nd.Health.of, jax.ShapeDtypeStruct((2**20, 2**13), jnp.bfloat16))
    assert (huge.nan.dtype, huge.largest.dtype) == (jnp.uint32, jnp.float32)
    monkeypatch.setattr(module, "MOST", 2**12)
    with jax.disable_jit():
        assert nd.Health.of(jnp.full((2**7, 2**6), NAN)).nan == 2**12 - 255
        assert nd.Health.of(jnp.zeros((2**7, 2**6)).at[3].set(NAN)).nan == 2**6


def test_str_reads_as_a_sentence():
    assert str(nd.Health.of(jnp.full(40, -2500.0).at[:3].set(NAN).at[3].set(INF))) == "3 nan and 1 inf in 40 values, largest 2.5e+03"
    assert str(nd.Health.of(jnp.array([NAN, 0.5]))) == "1 nan in 2 values, largest 0.5"
    assert str(nd.Health.of(jnp.array([INF]))) == "1 inf in 1 values"
    assert str(nd.Health.of(jnp.ones(3))) == "no nan or inf in 3 values, largest 1"


def test_str_of_many_is_that_of_all_together():
    assert str(jax.vmap(nd.Health.of)(jnp.array(MIXED))) == "1 nan and 2 inf in 6 values, largest 2.5e+03"


def test_str_inside_jit_says_what_it_holds_and_does_not_fail():
    seen = []
    jax.jit(lambda x: seen.append(str(nd.Health.of(x))))(jnp.ones(3))
    assert seen[0].startswith("Health(nan=")


def step(params, x):
    """A training step with its gradient, to the bit what it is without a probe."""

    def loss(params):
        hidden = jax.nn.gelu(x @ params["w"] + params["b"])
        hidden = (hidden - hidden.mean(-1, keepdims=True)) * lax.rsqrt(hidden.var(-1, keepdims=True) + 1e-5)
        return -jnp.mean(jax.nn.log_softmax(hidden))

    value, slope = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g / (jnp.abs(g) + 1e-3), params, slope), slope, value


@pytest.mark.parametrize("compiled", [True, False])
def test_the_value_is_the_functions_own_to_the_bit(compiled):
    key_w, key_x = jax.random.split(jax.random.key(0))
    params = {"w": jax.random.normal(key_w, (32, 32)), "b": jnp.zeros(32)}
    jit = jax.jit if compiled else identity
    arguments = params, jax.random.normal(key_x, (64, 32))
    assert same_bits(jit(nd.probe(step))(*arguments)[0], jit(step)(*arguments))


def test_not_an_array_of_the_result_is_replaced():
    result = [jnp.ones(3), np.ones(2), 1.5, print]
    out, _ = nd.probe(lambda: result)()
    assert out is result


def test_keywords_and_the_name_are_the_functions_own():
    def scaled(x, *, by=2.0):
        return x * by

    probed = nd.probe(scaled)
    assert probed.__name__ == "scaled"
    assert jax.jit(probed, static_argnames="by")(jnp.ones(2), by=3.0)[1].largest == 3


def test_jit_of_a_probe_and_a_probe_of_a_jit_agree():
    x = jnp.arange(-2.0, 3.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = truth(np.log(np.arange(-2.0, 3.0)))
    assert told(jax.jit(nd.probe(jnp.log))(x)[1]) == told(nd.probe(jax.jit(jnp.log))(x)[1]) == expected


def test_grad_with_the_health_as_auxiliary_value_is_the_gradient():
    x = jnp.array([1.0, 2.0, 3.0])
    gradient, health = jax.grad(nd.probe(lambda x: jnp.sum(x**2)), has_aux=True)(x)
    np.testing.assert_array_equal(gradient, 2 * np.arange(1.0, 4.0))
    assert told(health) == (0, 0, 1, 14.0)


def test_a_nan_in_a_probed_intermediate_reaches_no_gradient():
    def loss(x, look):
        y, health = look(jnp.log)(x)
        return jnp.sum(jnp.where(x > 1, x, 0.0)), (y, health)

    gradient, (_, health) = jax.grad(lambda x: loss(x, nd.probe), has_aux=True)(jnp.array([-1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(gradient, [0.0, 0.0, 1.0])
    assert told(health)[:2] == (1, 1)


def test_a_loss_that_uses_the_largest_magnitude_gets_no_gradient_from_it():
    gradient = jax.grad(lambda x: x * 2 + nd.probe(jnp.sqrt)(x)[1].largest)(0.0)
    assert gradient == 2


def test_jvp_of_a_probe_is_that_of_the_function():
    (value, health), (tangent, flat) = jax.jvp(nd.probe(jnp.exp), (jnp.float32(1),), (jnp.float32(1),))
    assert (tangent, flat.largest, told(health)[0]) == (value, 0, 0)


def test_vmap_gives_a_health_for_each():
    _, health = jax.vmap(nd.probe(lambda x: x / x))(jnp.array([1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(health.nan, [0, 1, 0])
    np.testing.assert_array_equal(health.size, [1, 1, 1])


def test_scan_stacks_the_health_and_carries_the_merged_one():
    def body(seen, x):
        _, health = nd.probe(lambda x: 1 / x)(x)
        return seen | health, health

    xs = np.array([1.0, 0.0, 4.0, np.nan])
    seen, each = jax.jit(lambda xs: lax.scan(body, nd.Health.of(None), xs))(jnp.array(xs))
    with np.errstate(divide="ignore"):
        assert told(seen) == truth(1 / xs)
    np.testing.assert_array_equal(each.inf, [0, 1, 0, 0])
    np.testing.assert_array_equal(each.nan, [0, 0, 0, 1])


def test_the_branches_of_a_cond_may_give_different_health():
    choose = jax.jit(lambda flag, x: lax.cond(flag, nd.probe(lambda x: x * jnp.inf), lambda x: (x, nd.Health.of(None)), x))
    assert told(choose(True, jnp.ones(3))[1]) == (0, 3, 3, 0.0)
    assert told(choose(False, jnp.ones(3))[1]) == (0, 0, 0, 0.0)


def test_a_while_loop_can_end_when_something_is_not_finite():
    def body(state):
        return nd.probe(lambda x: x * x)(state[0])

    _, health = jax.jit(lambda x: lax.while_loop(lambda state: state[1].finite, body, (x, nd.Health.of(None))))(jnp.float32(10))
    assert told(health) == (0, 1, 1, 0.0)


def test_eval_shape_and_tree_map_see_a_pytree_of_scalars():
    _, health = jax.eval_shape(nd.probe(identity), jnp.ones((4, 5)))
    assert isinstance(health, nd.Health)
    assert [leaf.shape for leaf in jax.tree.leaves(health)] == [()] * 4


def test_health_survives_jax_checkpoint_and_donation():
    health = jax.jit(nd.Health.merge, donate_argnums=0)(nd.Health.of(jnp.ones(2)), nd.Health.of(jnp.array([NAN])))
    assert told(health)[:3] == (1, 0, 3)
    assert told(jax.grad(jax.checkpoint(nd.probe(jnp.sin)), has_aux=True)(1.0)[1])[:3] == (0, 0, 1)


def test_across_a_named_axis_of_vmap_all_are_counted():
    health = jax.vmap(lambda x: nd.Health.of(x).across("i"), axis_name="i")(jnp.array(MIXED))
    assert (health.nan.tolist(), health.inf.tolist(), health.size.tolist(), health.largest.tolist()) == (
        [1, 1],
        [2, 2],
        [6, 6],
        [2500, 2500],
    )


SHARDED = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import nandetect as nd

mesh = Mesh(np.array(jax.devices()), ("d",))
x = jnp.arange(8.0).at[5].set(-1)
told = lambda health: jax.tree.map(lambda field: np.asarray(field).tolist(), [health.nan, health.inf, health.size, health.largest])


def each(x):
    return jax.tree.map(lambda field: field[None], nd.probe(jnp.sqrt)(x)[1])


def together(x):
    return nd.probe(jnp.sqrt)(x)[1].across("d")


mapped = lambda function, out: jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P("d"), out_specs=out))
spread = jax.device_put(x, NamedSharding(mesh, P("d")))
print(json.dumps({
    "each": told(mapped(each, P("d"))(x)),
    "together": told(mapped(together, P())(x)),
    "eager": told(jax.shard_map(together, mesh=mesh, in_specs=P("d"), out_specs=P())(x)),
    "spread": told(jax.jit(nd.probe(jnp.sqrt))(spread)[1]),
    "spread, eager": told(nd.probe(jnp.sqrt)(spread)[1]),
}))
"""


@pytest.fixture(scope="module")
def sharded():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_under_shard_map_each_shard_counts_its_own(sharded):
    roots = np.sqrt(np.array([0.0, 1, 3, 7], np.float32))
    assert sharded["each"] == [[0, 0, 1, 0], [0, 0, 0, 0], [2, 2, 2, 2], [float(roots[1]), float(roots[2]), 2.0, float(roots[3])]]


@pytest.mark.parametrize("way", ["together", "eager", "spread", "spread, eager"])
def test_all_shards_together_are_counted_as_one_array(sharded, way):
    assert sharded[way] == [1, 0, 8, float(np.sqrt(np.float32(7)))]
