"""A NaN that was compared, and so decided what finite results depend on, is found; what was meant to be decided so is none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from nandetect.locating.steered import may_be_steered, steered
from nandetect.program.trace import trace


def objective(x):
    return x * x - jnp.log(1.0 - x)  # <-- origin


LINE = objective.__code__.co_firstlineno + 1


def asked(function, *args):
    return steered(trace(jax.jit(function), args, {}))


def halved_until_it_falls(x):
    # The first trial steps are beyond 1, where the logarithm is NaN: no fall, as it happens.
    return x + lax.while_loop(lambda step: ~(objective(x + step) < objective(x) + 0.5), lambda step: step / 2, 4.0)


def the_best_of_a_line(x):
    def trial(state):
        number, step, best, value = state
        new = objective(x + step)
        is_better = new < value
        return number + 1, step / 2, jnp.where(is_better, step, best), jnp.where(is_better, new, value)

    return lax.while_loop(lambda state: state[0] < 5, trial, (0, 4.0, 0.0, objective(x) + 1.0))[2]


def within_a_descent(x):
    def descend(x, _):
        return lax.while_loop(lambda step: ~(objective(x - step) <= objective(x)), lambda step: step / 2, -4.0) * -0.1 + x, x

    return lax.scan(descend, x, None, length=3)[0]


def ended_by_it(x):
    def grow(state):
        return state[0] + 0.25, objective(state[0] + 0.25)

    return lax.while_loop(lambda state: state[1] < 100.0, grow, (x, 0.0))[0]


def a_branch_taken(x):
    return lax.cond(objective(x + 2.0) < 3.0, lambda: x, lambda: x / 2)


def compared_in_vain_at_first(x):
    # The first value has none before it: 0 / 0 is compared, which decides nothing there.
    def iterate(state):
        number, x, before, _ = state
        value = objective(x)
        return number + 1, x + 0.35, value, (number > 0) & (number * value / (number * before) > 50.0)

    return lax.while_loop(lambda state: (state[0] < 9) & ~state[3], iterate, (0, x, 1.0, False))[1]


@pytest.mark.parametrize(
    ("search", "decided", "context"),
    [
        (halved_until_it_falls, "the end of the loop", ()),
        (the_best_of_a_line, "what was selected", (("while", 0),)),
        (within_a_descent, "the end of the loop", (("scan", 0),)),
        (ended_by_it, "the end of the loop", (("while", 3),)),
        (a_branch_taken, "which branch ran", ()),
        (compared_in_vain_at_first, "what was selected", (("while", 3),)),
    ],
)
def test_what_a_nan_steered_is_told_where_the_nan_was_born(search, decided, context):
    report = asked(search, jnp.float32(0.1))
    assert report is not None
    assert report.origin.source is not None
    assert (report.origin.primitive, report.origin.value, report.origin.source.line) == ("log", "nan", LINE)
    assert report.notes[-1].split(" at line")[0] == f"nan decided {decided}"
    assert [name for name, _ in report.origin.context if name == "scan"] == [name for name, _ in context if name == "scan"]


def asks_first(x):
    def trial(step):
        value = objective(x + step)
        return ~(jnp.isfinite(value) & (value < objective(x) + 0.5))

    return x + lax.while_loop(trial, lambda step: step / 2, 4.0)


def replaced(x):
    value = objective(x + 2.0)
    return lax.cond(jnp.where(jnp.isnan(value), jnp.inf, value) < 3.0, lambda: x, lambda: x / 2)


def an_overflow_rejected(x):
    return lax.while_loop(lambda h: jnp.exp(x * h) > 2.0, lambda h: h / 2.0, 1e4)


def the_best_so_far(x):
    def step(state):
        return state[0] + 1, jnp.minimum(state[1], x), jnp.where(x < state[2], x, state[2])

    return lax.while_loop(lambda state: state[2] > x, step, (0, jnp.inf, jnp.inf))[1:]


def a_lane_that_is_done(x):
    # The lane that is done goes on within the loop, and what it computes there is thrown away.
    def grow(start):
        return lax.while_loop(lambda y: y < 1.0, lambda y: y + 0.5 + 0.0 * jnp.sqrt(1.2 - y), start)

    return jax.vmap(grow)(jnp.array([0.9, 0.0]) * x)


def data_that_are_missing(x):
    data = jnp.where(jnp.arange(3) == 1, jnp.nan, x)
    return lax.while_loop(lambda state: state[0] < 3, lambda state: (state[0] + 1, state[1] + (data[state[0]] > 0)), (0, 0))


def masked(x):
    return lax.cond(jnp.where(x > 1.0, objective(x + 2.0), x) > 0.0, lambda: x, lambda: x / 2)


@pytest.mark.parametrize(
    "program", [asks_first, replaced, an_overflow_rejected, the_best_so_far, a_lane_that_is_done, data_that_are_missing, masked]
)
def test_what_was_meant_to_be_decided_so_is_no_steering(program):
    assert asked(program, jnp.float32(0.1)) is None


def network(w, x, key):
    x = jax.nn.relu(x @ w) * jax.random.bernoulli(key, 0.5, (3,))
    return lax.fori_loop(0, 3, lambda _, y: jnp.where(y > 0.5, y / 2, y), x)


@pytest.mark.parametrize(
    ("program", "may_be"),
    [
        (lambda x: halved_until_it_falls(x), True),
        (a_branch_taken, True),
        (lambda x: lax.cond(jnp.int32(x) % 2 == 0, lambda: x, lambda: jnp.where(x > 0, x, -x)), True),
        (lambda x: jax.grad(lambda w: network(w, jnp.ones(3), jax.random.key(0)).sum())(x * jnp.eye(3)), False),
        (lambda x: lax.scan(lambda c, _: (lax.cond(c > 0, jnp.sin, jnp.cos, c), None), x, None, 2)[0], True),
        (lambda x: lax.fori_loop(0, jnp.int32(3), lambda i, y: lax.switch(i, [jnp.sin, jnp.cos], y), x), False),
    ],
)
def test_only_a_program_in_which_numbers_decide_may_be_steered(program, may_be):
    assert may_be_steered(jax.make_jaxpr(program)(jnp.float32(0.1)).jaxpr) is may_be


def test_what_is_decided_so_otherwise_too_was_not_steered():
    # The trial that diverges is rejected for its infinite energy; that it turned back cannot be told, and is not asked.
    def step(x):
        def extend(state):
            x, _ = state
            new = x * 1e30
            has_turned = (new - new * 1e20 * 0.0) * jnp.inf - jnp.inf < 0.0
            return jnp.where(new > 1e30, x, new), (new > 1e25) | has_turned

        return lax.while_loop(lambda state: ~state[1], extend, (x, False))[0]

    assert asked(step, jnp.float32(0.1)) is None


def test_a_nan_that_steers_only_what_stands_beside_the_results_steers_nothing():
    def step(x):
        return a_branch_taken(x), x + 1.0

    program = trace(jax.jit(step), (jnp.float32(0.1),), {})
    assert steered(program, beside=(0,)) is None
    assert steered(program, beside=(1,)) is not None
