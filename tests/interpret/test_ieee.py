"""What numpy computes in place of XLA agrees with it to the bit, on awkward numbers above all."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nandetect import compat
from nandetect.interpret import ieee, walk

SHAPE = (4, 30)
FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = ["int32", "uint8", "bool"]
# XLA on the CPU flushes subnormal numbers of these; where one is met, evaluation must be left to it.
WITH_SUBNORMALS = ["float16", "float32"]
CASES = {
    "add": lax.add,
    "sub": lax.sub,
    "mul": lax.mul,
    "div": lax.div,
    "max": lax.max,
    "min": lax.min,
    "eq": lax.eq,
    "ne": lax.ne,
    "lt": lax.lt,
    "le": lax.le,
    "gt": lax.gt,
    "ge": lax.ge,
    "and": lax.bitwise_and,
    "or": lax.bitwise_or,
    "xor": lax.bitwise_xor,
    "not": lambda x, y: lax.bitwise_not(x),
    "neg": lambda x, y: lax.neg(x),
    "abs": lambda x, y: lax.abs(x),
    "sign": lambda x, y: lax.sign(x),
    "floor": lambda x, y: lax.floor(x),
    "ceil": lambda x, y: lax.ceil(x),
    "square": lambda x, y: lax.square(x),
    "sqrt": lambda x, y: lax.sqrt(x),
    "is_finite": lambda x, y: lax.is_finite(x),
    "clamp": lambda x, y: lax.clamp(lax.neg(lax.abs(x)), y, lax.abs(x)),
    "reduce_max": lambda x, y: lax.reduce(x, -np.inf, lax.max, (1,)),
    "reduce_min": lambda x, y: lax.reduce(x, np.inf, lax.min, (0,)),
    **{f"power {n}": lambda x, y, n=n: lax.integer_pow(x, n) for n in (-3, -2, -1, 0, 1, 2, 3, 5, 8)},
    **{f"to {name}": lambda x, y, name=name: lax.convert_element_type(x, name) for name in (*FLOATS, *INTEGERS, "float8_e5m2")},
}
MOVES = {
    "reshape": lambda x, y: lax.reshape(x, (30, 4)),
    "reshape transposed": lambda x, y: lax.reshape(x, (120,), (1, 0)),
    "transpose": lambda x, y: lax.transpose(x, (1, 0)),
    "rev": lambda x, y: lax.rev(x, (1,)),
    "expand": lambda x, y: lax.expand_dims(x, (1,)),
    "squeeze": lambda x, y: lax.squeeze(x[:1], (0,)),
    "broadcast": lambda x, y: lax.broadcast_in_dim(x, (2, *SHAPE), (1, 2)),
    "slice": lambda x, y: lax.slice(x, (1, 3), (3, 29), (1, 3)),
    "split": lambda x, y: lax.split(x, (10, 20), 1),
    "concatenate": lambda x, y: lax.concatenate([x, y], 1),
    "select": lambda x, y: lax.select_n(jnp.arange(120).reshape(SHAPE) % 3 == 0, x, y),
    "select by number": lambda x, y: lax.select_n(jnp.arange(120, dtype=jnp.int32).reshape(SHAPE) % 3, x, y, x),
    "select by scalar": lambda x, y: lax.select_n(jnp.bool_(True), x, y),
    "dynamic slice": lambda x, y: lax.dynamic_slice(x, (np.int32(3), np.int32(-9)), (2, 5)),
    "dynamic update": lambda x, y: lax.dynamic_update_slice(x, y[:2, :5], (np.int32(3), np.int32(-9))),
    "pad": lambda x, y: lax.pad(x, y[0, 0], ((1, 2, 0), (0, 0, 1))),
    "pad inward": lambda x, y: lax.pad(x, y[0, 0], ((-1, 2, 2), (3, -4, 1))),
    "pad away": lambda x, y: lax.pad(x, y[0, 0], ((0, 0, 0), (-60, 40, 1))),
}


def numbers(dtype, seed, subnormal):
    """Signed zeros, infinities, NaN, the largest and the smallest numbers, halves, and ordinary ones of every size."""
    rng, dtype = np.random.default_rng(seed), jnp.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, SHAPE).astype(bool)
    if dtype.kind in "iu":
        info = jnp.iinfo(dtype)
        return rng.choice(np.array([0, 1, 2, 7, info.max, info.max - 1, info.min], dtype), SHAPE)
    info = jnp.finfo(dtype)
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, float(info.max), -float(info.max), float(info.tiny), 0.5, -2.5, 3.5]
    special += [float(info.smallest_subnormal), -3 * float(info.smallest_subnormal)] if subnormal else []
    with np.errstate(all="ignore"):
        spread = 20 if dtype.itemsize > 2 else 5
        ordinary = (rng.normal(size=SHAPE) * np.exp(spread * rng.normal(size=SHAPE))).astype(dtype)
        ordinary = np.where(np.abs(ordinary) < info.tiny, np.zeros((), dtype), ordinary)
        return np.where(rng.random(SHAPE) < 0.6, rng.choice(np.array(special).astype(dtype), SHAPE), ordinary).astype(dtype)


def bits(x):
    """An array as integers, all NaNs alike."""
    x = np.ascontiguousarray(x)
    if x.dtype.kind in "biu":
        return x
    return np.where(np.isnan(x.astype(np.float64)), -1, x.view(f"u{x.dtype.itemsize}").astype(np.int64))


def agree(cases, dtype, subnormal=False):
    """Each function of two arrays of this type gives what XLA gives, all compiled as one program; how many could be traced."""
    x, y = (numbers(dtype, seed, subnormal) for seed in (1, 2))
    known = {name: function for name, function in cases.items() if traceable(function, x, y)}

    def together(x, y):
        return {name: function(x, y) for name, function in known.items()}

    closed, shapes = jax.make_jaxpr(together, return_shape=True)(x, y)
    run = walk.Run(closed.jaxpr, list(closed.consts))
    walk.run(run, [x, y])
    evaluated = jax.tree.unflatten(jax.tree.structure(shapes), [np.asarray(run.read(var)) for var in closed.jaxpr.outvars])
    compiled = jax.jit(together)(x, y)
    for name in known:
        for got, want in zip(jax.tree.leaves(evaluated[name]), jax.tree.leaves(compiled[name]), strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape), name
            np.testing.assert_array_equal(bits(got), bits(np.asarray(want)), err_msg=f"{name} of {dtype}")
    return len(known)


def traceable(function, x, y):
    try:
        jax.eval_shape(function, x, y)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(("dtype", "subnormal"), [*((d, False) for d in (*FLOATS, *INTEGERS)), *((d, True) for d in WITH_SUBNORMALS)])
def test_arithmetic_agrees_with_xla_to_the_bit(dtype, subnormal, x64):
    assert agree(CASES, dtype, subnormal) > 15


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_moves_agree_with_xla_to_the_bit(dtype):
    assert agree(MOVES, dtype, subnormal=True) == len(MOVES)


@pytest.mark.parametrize("name", ["add", "mul", "div", "max", "lt", "floor", "is_finite", "to float16", "power 3", "reduce_max"])
def test_common_arithmetic_is_done_without_compiling(name):
    x = np.full(SHAPE, 2.0, np.float32)
    closed = jax.make_jaxpr(CASES[name])(x, x)
    (eqn,) = [eqn for eqn in closed.jaxpr.eqns if eqn.primitive.name != "broadcast_in_dim"]
    operands = [np.asarray(atom.val, compat.aval(atom).dtype) if isinstance(atom, compat.Literal) else x for atom in eqn.invars]
    assert ieee.evaluate(eqn, operands) is not None


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sin", "rsqrt", "logistic"])
def test_functions_that_xla_rounds_its_own_way_are_left_to_xla(name):
    x = np.ones(3, np.float32)
    closed = jax.make_jaxpr(getattr(lax, name))(x)
    assert ieee.evaluate(closed.jaxpr.eqns[0], [x]) is None
