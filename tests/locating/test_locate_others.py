"""Several operations that each break the result: all are named, and none of them is called innocent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import nandetect as nd


def two(x, z):
    return x / x + 1.0 / z


def three_results(x, z):
    a = jnp.log(x)
    return a - a + jnp.sqrt(z - 1.0), 1.0 / z


def beside_a_loop(x, z):
    total, _ = lax.scan(lambda c, i: (c + x / (z + i), None), 0.0, jnp.arange(3.0))
    return total * jnp.sqrt(z - 1.0)


def within_a_loop(x, z):
    def body(carry, i):
        return carry + x / z, jnp.log(x - i)

    total, logs = lax.scan(body, 0.0, jnp.arange(2.0))
    return total + logs.sum()


def in_a_branch_of_a_loop(x, z):
    def body(carry, i):
        return lax.cond(i > 0, lambda c: c + 1.0 / z, lambda c: c, carry), None

    total, _ = lax.scan(body, 0.0, jnp.arange(3))
    return total + jnp.sqrt(x - 5.0)


@pytest.mark.parametrize(
    ("function", "args", "origin", "others"),
    [
        (two, (0.0, 0.0), "div", ["div"]),
        (two, (0.0, 1.0), "div", []),
        (three_results, (0.0, 0.0), "log", ["sqrt", "div"]),
        (three_results, (0.0, 2.0), "log", []),
        (beside_a_loop, (1.0, 0.0), "div", ["sqrt"]),
        (beside_a_loop, (1.0, 2.0), None, []),
        (within_a_loop, (1.0, 0.0), "div", ["log"]),
        (within_a_loop, (2.0, 0.0), "div", []),
        # A nan comes from a nan: the inf only met it.
        (in_a_branch_of_a_loop, (1.0, 0.0), "sqrt", ["div"]),
    ],
)
def test_what_breaks_the_result_without_the_origin_is_also_at_fault(function, args, origin, others):
    report = nd.locate(jax.jit(function), *map(jnp.float32, args))
    assert (report and report.origin.primitive) == origin
    assert [event.primitive for event in (report.others if report else ())] == others


def test_no_birth_is_called_innocent_that_a_gradient_descends_from():
    # acos and its derivative both leave the domain; the derivative's factor is computed on the way to the loss, and breaks q by itself.
    # Whoever mends the operation mends its derivative, so that it is not told beside it either.
    def step(q):
        loss, gradient = jax.value_and_grad(lambda q: jnp.sum(jnp.arccos(q * 5)))(q)
        return q - 0.001 * gradient, loss

    report = nd.locate(jax.jit(step), jnp.array([0.1, 0.3]))
    assert report is not None
    assert (report.origin.primitive, report.others, report.benign) == ("acos", (), ())


def test_what_descends_from_the_origin_is_not_at_fault_beside_it():
    report = nd.locate(jax.jit(lambda x: jnp.sqrt(jnp.exp(x) * 0.0)), jnp.float32(1000.0))
    assert report is not None
    assert (report.origin.primitive, report.others) == ("exp", ())


def test_what_met_another_non_finite_value_on_the_way_is_not_called_innocent():
    # With the nan mended the minimum is sound: the inf is no fault of its own, and no stranger to the result either.
    report = nd.locate(jax.jit(lambda x, z: jnp.minimum(x / x, 1.0 / z)), jnp.float32(0.0), jnp.float32(0.0))
    assert report is not None
    assert (report.others, report.benign) == ((), ())


def test_what_the_cause_names_is_not_called_innocent():
    def loss(s):
        weights = jnp.exp(s)
        return jnp.log(s / weights).sum()

    report = nd.locate(jax.jit(loss), jnp.array([1.0, 1000.0]))
    assert report is not None
    assert (report.origin.primitive, [event.primitive for event in report.cause if event.value == "inf"]) == ("log", ["exp"])
    assert report.benign == ()


def test_a_loop_that_waits_for_a_number_that_mending_takes_away_ends():
    def step(x, z):
        # With `log` mended the loop would wait for ever: 0.73 is never less than -1.
        low = lax.while_loop(lambda c: ~(c < -1.0), lambda c: jnp.log(x) * (1.0 + 0.0 * c), jnp.float32(0.0))
        return low + 1.0 / z

    report = nd.locate(jax.jit(step), jnp.float32(0.0), jnp.float32(0.0))
    assert report is not None
    assert [report.origin.primitive, *(event.primitive for event in report.others)] == ["log", "div"]


def _waiting(depth, y, v):
    """Loops in loops that go on for ever unless `y` is NaN."""
    inner = (lambda s: _waiting(depth - 1, y, s)) if depth > 1 else (lambda s: s * 1.5 + 1.0)
    return lax.while_loop(lambda s: ~jnp.isnan(y), lambda s: jnp.sin(s) + inner(s), v)


@pytest.mark.parametrize("depth", [1, 3])
def test_loops_that_wait_for_what_mending_takes_away_end_also_where_they_are_followed_back_or_nested(depth):
    def step(x):
        y = jnp.log(x)
        return _waiting(depth, y, x) + y + jnp.sqrt(x - 3.0)

    report = nd.locate(jax.jit(step), jnp.float32(-1.0))
    assert report is not None
    assert [report.origin.primitive, *(event.primitive for event in report.others)] == ["log", "sqrt"]


def test_a_fault_beside_an_input_that_arrived_broken_is_named():
    report = nd.locate(jax.jit(two), jnp.float32(jnp.nan), jnp.float32(0.0))
    assert report is not None
    assert (report.origin.argument, [event.primitive for event in report.others]) == ("x", ["div"])


@pytest.mark.parametrize("value", [jnp.inf, -jnp.inf])
@pytest.mark.parametrize(
    ("function", "primitive"), [(lambda z: z - z, "sub"), (lambda z: 0.0 * z, "mul"), (jnp.sin, "sin"), (lambda z: z / z, "div")]
)
def test_an_operation_that_makes_nan_of_an_inf_that_arrived_is_the_origin_and_the_input_its_cause(value, function, primitive):
    report = nd.locate(jax.jit(lambda z: function(z)), jnp.array([1.0, value]))
    assert report is not None
    assert (report.origin.primitive, report.origin.value, report.origin.index) == (primitive, "nan", (1,))
    assert [(event.primitive, event.argument, event.value) for event in report.cause] == [("<input>", "z", "inf" if value > 0 else "-inf")]


def test_also_at_fault_reads_so():
    report = nd.locate(jax.jit(two), jnp.float32(0.0), jnp.float32(0.0))
    line = two.__code__.co_firstlineno + 1
    said = [row.strip() for row in str(report).splitlines() if "also" in row or "not at fault" in row]
    assert said == [f"= also at fault, even with that mended: `1.0 / z` (line {line}), division by zero: 1.0 / 0.0"]
