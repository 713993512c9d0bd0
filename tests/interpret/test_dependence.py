"""Which elements an element depends on, against a counterfactual: change one element of an operand and see which outputs change."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nandetect import compat, nonfinite
from nandetect.interpret import dependence, walk
from nandetect.primitives import Depends


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def definite(n):
    a = array(n, n)
    return a @ a.T + n * np.eye(n, dtype=np.float32)


# An answer may mark more than what depends, but never less; these must mark exactly what depends.
ROWS = np.array([0, 2, 0, 9])
EXACT = {
    "elementwise": (lax.add, array(2, 3), array(2, 3, seed=1)),
    "function": (lax.erf, array(2, 3)),
    "scalar": (lambda a, b: lax.mul(a, lax.broadcast(b, (2, 3))), array(2, 3), array()),
    "sum": (lambda a: a.sum(1), array(2, 3, 2)),
    "sum over two axes": (lambda a: a.sum((0, 2)), array(2, 3, 2)),
    "product": (lambda a: a.prod(0), array(2, 3)),
    "running sum": (lambda a: lax.cumsum(a, 1), array(2, 4)),
    "running sum in reverse": (lambda a: lax.cumsum(a, 0, reverse=True), array(4, 2)),
    "running maximum": (lambda a: lax.cummax(a, 1), array(2, 4)),
    "running product": (lambda a: lax.cumprod(a, 1), array(2, 4)),
    "matrix product": (lambda a, b: a @ b, array(2, 3), array(3, 4)),
    "batched product": (lambda a, b: lax.dot_general(a, b, (((0,), (2,)), ((1,), (1,)))), array(3, 2, 4), array(5, 2, 3)),
    "two contracted axes": (lambda a, b: lax.dot_general(a, b, (((0, 2), (1, 0)), ((), ()))), array(3, 2, 4), array(4, 3, 2)),
    "outer product": (lambda a, b: lax.dot_general(a, b, (((), ()), ((), ()))), array(3), array(4)),
    "inner product": (lambda a, b: a @ b, array(3), array(3, seed=1)),
    "gather": (lambda a: a[np.array([[0, 2], [1, -1]])], array(3, 2)),
    "gather out of bounds": (lambda a: a.at[np.array([0, 7, -1])].get(mode="fill"), array(3, 2)),
    "scatter": (lambda a, u: a.at[np.array([0, 2])].set(u), array(4, 2), array(2, 2)),
    "scatter by adding": (lambda a, u: a.at[ROWS].add(u), array(4, 2), array(4, 2, seed=1)),
    "scatter by subtracting": (lambda a, u: a.at[ROWS].subtract(u), array(4, 2), array(4, 2, seed=1)),
    "real part": (lax.real, array(3).astype(np.complex64)),
    "complex": (lax.complex, array(3), array(3, seed=1)),
    "pad": (lambda a, v: lax.pad(a, v, ((1, -1, 1), (0, 2, 0))), array(3, 2), array()),
    "concatenate": (lambda a, b: lax.concatenate([a, b], 0), array(1, 2), array(3, 2)),
    "select": (lambda a, b: lax.select_n(np.array([[True, False], [False, True]]), a, b), array(2, 2), array(2, 2, seed=1)),
    "dynamic slice": (lambda a: lax.dynamic_slice(a, (np.int32(1), np.int32(5)), (2, 2)), array(3, 4)),
    "dynamic update": (lambda a, u: lax.dynamic_update_slice(a, u, (np.int32(1), np.int32(5))), array(3, 4), array(2, 2)),
    "transpose": (lambda a: lax.transpose(a, (1, 2, 0)), array(2, 3, 2)),
    "reverse": (lambda a: lax.rev(a, (1,)), array(2, 3)),
    "reshape": (lambda a: lax.reshape(a, (3, 2)), array(2, 3)),
    "reshape transposed": (lambda a: lax.reshape(a, (6,), (1, 0)), array(2, 3)),
    "broadcast": (lambda a: lax.broadcast_in_dim(a, (2, 4, 3), (0, 2)), array(2, 3)),
    "stretch": (lambda a: lax.broadcast_in_dim(a, (2, 4), (0, 1)), array(2, 1)),
    "split": (lambda a: lax.split(a, (1, 2), 1), array(2, 3)),
    "roll": (lambda a: jnp.roll(a, 1, 0), array(4, 1)),
    "sum over a window": (lambda a: lax.reduce_window(a, 0.0, lax.add, (1, 2), (1, 1), "SAME"), array(2, 4)),
}
CONVOLUTION = ("NWC", "WIO", "NWC")
WIDE = {
    "scatter by multiplying": (lambda a, u: a.at[np.array([0, 2])].mul(u), array(4, 2), array(2, 2)),
    "scatter the maximum": (lambda a, u: a.at[np.array([0, 2])].max(u), array(4, 2), array(2, 2)),
    "convolution": (
        lambda a, b: lax.conv_general_dilated(a, b, (2,), ((1, 1),), dimension_numbers=CONVOLUTION),
        array(1, 5, 2),
        array(3, 2, 2),
    ),
    "grouped convolution": (
        lambda a, b: lax.conv_general_dilated(a, b, (1,), ((1, 1),), feature_group_count=2, dimension_numbers=CONVOLUTION),
        array(1, 4, 2),
        array(3, 1, 2),
    ),
    "dilated convolution": (
        lambda a, b: lax.conv_general_dilated(a, b, (1,), ((0, 2),), lhs_dilation=(2,), rhs_dilation=(2,), dimension_numbers=CONVOLUTION),
        array(1, 3, 2),
        array(2, 2, 1),
    ),
    "fourier": (lambda a: jnp.fft.rfft(a).real, array(2, 4)),
    "cholesky": (lax.linalg.cholesky, np.stack([definite(2), definite(2)])),
    "triangular solve": (lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True), definite(2), array(2, 2)),
    "lu": (lambda a: lax.linalg.lu(a)[0], np.stack([definite(2), definite(2)])),
    "qr": (jnp.linalg.qr, array(2, 3, 2)),
    "svd": (lambda a: jnp.linalg.svd(a, compute_uv=False), array(2, 3, 2)),
    "eigh": (jnp.linalg.eigh, np.stack([definite(2), definite(2)])),
    "maximum over a window": (lambda a: lax.reduce_window(a, -np.inf, lax.max, (1, 2), (1, 2), "VALID"), array(2, 4)),
    "maximum over a sliding window": (lambda a: lax.reduce_window(a, -np.inf, lax.max, (1, 2), (1, 1), "SAME"), array(2, 4)),
    "tridiagonal solve": (lambda *a: lax.linalg.tridiagonal_solve(*a), array(3), array(3) + 9, array(3), array(3, 1)),
    "reduction of one's own": (lambda a: lax.reduce(a, np.float32(0), lambda x, y: x * y + x + y, (1,)), array(2, 3)),
    "ragged product": (lambda a, b: lax.ragged_dot(a, b, jnp.array([1, 2], np.int32)), array(3, 2), array(2, 2, 2)),
}


def leaves(run):
    """Every equation that ran as a leaf, with its run."""
    for number, eqn in enumerate(run.jaxpr.eqns):
        if number in run.inner:
            yield from leaves(run.inner[number])
        else:
            yield run, eqn


def changed(eqn, values, slot, output):
    """For each element of an operand, which elements of an output change with it."""
    apply = jax.jit(lambda *operands: compat.bind(eqn, operands)[output])
    base, value = np.asarray(apply(*values)), values[slot]
    found = np.zeros((value.size, *base.shape), bool)
    for element in range(value.size):
        for new in (np.nan, np.inf, 3.75, -55.0):
            other = value.copy().reshape(-1)
            other[element] = new
            got = np.asarray(apply(*values[:slot], other.reshape(value.shape), *values[slot + 1 :]))
            found[element] |= ~((got == base) | (np.isnan(got) & np.isnan(base)))
    return found


def one(shape, element):
    return (np.arange(int(np.prod(shape))) == element).reshape(shape)


def marks(answer, shape, out):
    """What `push` and `pull` say of every pair of elements: two arrays shaped (element of the operand, *output)."""
    size = int(np.prod(shape))
    push = np.stack([answer.push(one(shape, element)) for element in range(size)])
    pulled = [np.asarray(answer.pull(one(out, element))).reshape(-1) for element in range(int(np.prod(out)))]
    return push, np.stack(pulled, -1).reshape(size, *out)


def compared(name):
    """(depends, push, pull) of every floating operand into every floating result of the equations of a case."""
    function, *args = {**EXACT, **WIDE}[name]
    closed = jax.make_jaxpr(function)(*args)
    top = walk.Run(closed.jaxpr, list(closed.consts))
    walk.run(top, args)
    for run, eqn in leaves(top):
        values = [np.asarray(value) for value in run.ins(eqn)]
        for output, var in enumerate(eqn.outvars):
            if not nonfinite.is_inexact(var.aval) or 0 in var.aval.shape:
                continue
            answers = {answer.slot: answer for answer in dependence.flows(eqn, values, output)}
            for slot, value in enumerate(values):
                if nonfinite.is_inexact(value):
                    yield changed(eqn, values, slot, output), *marks(answers[slot], value.shape, var.aval.shape)


def test_every_kind_of_dependence_has_a_rule():
    assert set(dependence.RULES) == set(Depends)


@pytest.mark.parametrize("name", EXACT)
def test_marks_are_what_depends_and_nothing_else(name):
    for depends, push, pull in compared(name):
        np.testing.assert_array_equal(push, depends)
        np.testing.assert_array_equal(pull, depends)


@pytest.mark.parametrize("name", WIDE)
def test_marks_leave_out_nothing_that_depends(name):
    for depends, push, pull in compared(name):
        assert not (depends & ~push).any()
        assert not (depends & ~pull).any()
        np.testing.assert_array_equal(push, pull)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: lax.sort(a, dimension=1),
        lambda a: lax.sort(a, dimension=0),
        lambda a: lax.sort((a, 10 + a), dimension=1, num_keys=1),
        lambda a: lax.sort((jnp.arange(8.0).reshape(2, 4), a), dimension=1, num_keys=1),
        lambda a: lax.top_k(a, 2)[0],
    ],
)
def test_marks_of_what_is_put_in_order_are_where_each_element_came_from(function):
    value = array(2, 4)
    value[0, 1], value[1, 2] = np.nan, -np.inf
    closed = jax.make_jaxpr(function)(value)
    top = walk.Run(closed.jaxpr, list(closed.consts))
    walk.run(top, [value])
    for run, eqn in leaves(top):
        values = [np.asarray(value) for value in run.ins(eqn)]
        if eqn.primitive.name not in ("sort", "top_k"):
            continue
        for answer in dependence.flows(eqn, values, 0):
            result = np.asarray(run.read(eqn.outvars[answer.slot]))
            (same,) = [found for found in dependence.flows(eqn, values, answer.slot) if found.slot == answer.slot]
            for element in np.ndindex(result.shape):
                pulled = same.pull(one(result.shape, np.ravel_multi_index(element, result.shape)))
                np.testing.assert_array_equal(values[answer.slot][pulled], [result[element]])
