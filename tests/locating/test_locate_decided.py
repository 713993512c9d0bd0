"""A NaN that decided a loop's end, a branch or a selection: the origin of what came of that, or named; never innocent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental.ode import odeint

import nandetect as nd


def found(function, *args):
    report = nd.locate(jax.jit(function), *args)
    assert report is not None
    return report


def test_an_integrator_whose_field_overflows_is_told_at_the_field():
    def field(y, t, w):
        return jnp.exp(w * y) - y

    report = found(lambda w: odeint(field, jnp.full(2, 2.0), jnp.linspace(0.0, 1.0, 5), w).sum(), jnp.float32(50.0))
    line = field.__code__.co_firstlineno + 1
    assert report.origin.source is not None
    assert (report.origin.primitive, report.origin.source.line, report.origin.phase) == ("exp", line, "forward")
    assert (report.others, report.benign) == ((), ())
    assert [note.split(" at line")[0] for note in report.notes] == ["nan decided the end of the loop"]


def test_a_loop_that_a_nan_ends_before_its_time():
    def solve(x):
        error = jnp.sqrt(x)
        steps = lax.while_loop(lambda s: error > s, lambda s: s + 1.0, jnp.float32(0.0))
        return 1.0 / steps

    assert found(solve, jnp.float32(-1.0)).origin.primitive == "sqrt"


def test_a_nan_that_an_iteration_made_and_that_ended_the_loop():
    def solve(x):
        def body(state):
            count, _ = state
            return count + 1, jnp.log(x - count)

        count, _ = lax.while_loop(lambda s: s[1] > -10.0, body, (0.0, 0.0))
        return 1.0 / (count - 4.0)

    report = found(solve, jnp.float32(2.5))
    assert (report.origin.primitive, report.origin.context) == ("log", (("while", 3),))


def test_a_branch_that_a_nan_took():
    def step(x):
        return lax.cond(jnp.sqrt(x) < 1.0, lambda: x, lambda: 1.0 / (x - x))

    assert found(step, jnp.float32(-1.0)).origin.primitive == "sqrt"


@pytest.mark.parametrize(
    "step",
    [
        lambda v: lax.cond(jnp.isfinite(v), lambda: v, lambda: jnp.float32(jnp.nan)),
        lambda v: jnp.where(jnp.isfinite(v), 1.0, jnp.nan),
        lambda v: jnp.where(v == v, 1.0, jnp.nan),
        lambda v: lax.select(jnp.isnan(v), jnp.float32(jnp.nan), v * 0.5),
    ],
)
def test_a_nan_that_is_written_where_something_is_not_finite_is_told_where_that_was_made(step):
    report = found(lambda x: step(jnp.log(x).mean()), jnp.array([-1.0, 2.0]))
    assert (report.origin.primitive, report.origin.index, report.benign) == ("log", (0,), ())


def test_a_selection_by_a_nan_is_named_beside_the_origin():
    def step(x):
        weight = jnp.where(jnp.sqrt(x) > 0.5, 1.0, 0.0)
        return 1.0 / weight

    report = found(step, jnp.float32(-1.0))
    line = step.__code__.co_firstlineno + 1
    assert (report.origin.primitive, report.benign) == ("div", ())
    assert report.notes == (f"nan decided what was selected at line {line}",)


@pytest.mark.parametrize(
    "select",
    [
        lambda x: jnp.where(jnp.sqrt(x) > 0.5, x - x, 0.0),
        lambda x: jnp.where((jnp.sqrt(x) > 0.5) | (x > 7.0), x + 1.0, x - x) * jnp.where(jnp.log(x) > 0.0, 0.0, -0.0),
    ],
)
def test_a_selection_by_a_nan_that_makes_no_difference_is_not_named(select):
    report = found(lambda x: 1.0 / jnp.abs(select(x)), jnp.float32(-1.0))
    assert (report.origin.primitive, report.notes) == ("div", ())


def test_a_step_that_was_rejected_for_its_infinite_error_decides_nothing_that_was_not_meant():
    # An adaptive loop halves its step until the error is finite; the fault is the logarithm after it.
    def step(x):
        size = lax.while_loop(lambda h: jnp.exp(x * h) > 2.0, lambda h: h / 2.0, jnp.float32(64.0))
        return jnp.log(size - 100.0)

    report = found(step, jnp.float32(10.0))
    assert (report.origin.primitive, report.notes) == ("log", ())


def test_a_value_that_is_tested_and_replaced_decides_nothing_that_was_not_meant():
    def step(x):
        inverse = 1.0 / x
        safe = jnp.where(jnp.isfinite(inverse), inverse, 0.0)
        return jnp.log(safe - 1.0)

    report = found(step, jnp.float32(0.0))
    assert (report.origin.primitive, report.notes) == ("log", ())


def test_a_branch_that_would_have_run_without_the_nan_too_was_not_taken_by_it():
    def step(x):
        return lax.cond((jnp.log(x) > 0) | (x < 5), lambda: jnp.sqrt(x - 3), lambda: x)

    report = found(step, jnp.float32(-1.0))
    assert (report.origin.primitive, report.others, report.notes) == ("sqrt", (), ())
    assert [event.primitive for event in report.benign] == ["log"]


def test_a_lane_that_a_nan_ended_did_not_end_the_others():
    def lane(x):
        def body(state):
            error, value = state
            return error + 1.0 + 0.0 * jnp.log(x), value + 1.0

        _, value = lax.while_loop(lambda s: s[0] < 3.0, body, (0.0, 0.0))
        return jnp.exp(value * x * 100.0)

    report = found(lambda x: jnp.where(x > 0, jax.vmap(lane)(x), 0.0), jnp.array([-1.0, 2.0]))
    assert (report.origin.primitive, report.notes) == ("exp", ())


@pytest.mark.parametrize(
    "is_sound",
    [
        lambda y: jnp.isfinite(y) & (y > 0),
        lambda y: (y > 0) & ~jnp.isnan(y),
        lambda y: jnp.abs(y) < jnp.inf,
        lambda y: ~(jnp.isnan(y) | jnp.isinf(y)) & (y > 0),
    ],
)
def test_a_nan_for_which_the_program_asks_took_the_branch_that_was_meant(is_sound):
    def step(x):
        y = jnp.log(x)
        return lax.cond(is_sound(y), lambda: y, lambda: jnp.sqrt(x - 3))

    report = found(step, jnp.float32(-1.0))
    assert (report.origin.primitive, report.notes) == ("sqrt", ())


def test_a_range_that_a_nan_is_not_in_was_decided_by_it():
    def step(x):
        y = jnp.log(x)
        return lax.cond((y > -9) & (y < 9), lambda: y, lambda: jnp.sqrt(x - 3))

    assert found(step, jnp.float32(-1.0)).origin.primitive == "log"
