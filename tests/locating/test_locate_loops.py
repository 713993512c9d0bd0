"""Loops: the iteration at which a value went bad, whatever carried it to the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import nandetect as nd
from nandetect.records import Report


def report_of(function: Callable[..., Any], *args: Any) -> Report:
    """The report of a step that breaks."""
    report = nd.locate(function, *args)
    assert report is not None
    return report


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_names_the_row_that_the_body_divided_by(find, xs, reverse):
    def f(xs):
        def body(carry, x):
            return carry / x, carry  # <-- origin

        return lax.scan(body, 1.0, xs, reverse=reverse)

    origin = find(jax.jit(f), xs).origin
    assert (origin.primitive, origin.context, origin.index) == ("div", (("scan", 1),), ())
    assert origin.operands[1].value == 0.0


def test_stacked_output_alone_leads_to_its_iteration_and_element(find):
    def f(xs):
        def body(carry, x):
            return carry + 1, jnp.log(x)  # <-- origin

        return lax.scan(body, 0.0, xs)[1]

    origin = find(jax.jit(f), jnp.ones((4, 3)).at[2, 1].set(0)).origin
    assert (origin.context, origin.index) == ((("scan", 2),), (1,))


def test_nested_scans_name_both_iterations(find):
    def f(xs):
        def inner(carry, x):
            return carry + jnp.log(x), None  # <-- origin

        return lax.scan(lambda carry, row: (lax.scan(inner, carry, row)[0], carry), 0.0, xs)

    origin = find(jax.jit(f), jnp.ones((4, 3)).at[2, 1].set(0)).origin
    assert origin.context == (("scan", 2), ("scan", 1))
    outer, inner = origin.loops
    assert (outer.line, inner.line) == (origin.source.line + 2, origin.source.line + 2)
    assert "lax.scan(inner" in inner.code and "lax.scan(lambda carry" in outer.code


def test_while_names_the_iteration_and_the_values_of_that_iteration(find):
    def f(x):
        return lax.while_loop(lambda c: c[0] < 150, lambda c: (c[0] + 1, c[1] * 2.0), (0, x))  # <-- origin

    origin = find(jax.jit(f), jnp.float32(2)).origin
    assert (origin.primitive, origin.value, origin.context) == ("mul", "inf", (("while", 126),))
    assert [operand.value for operand in origin.operands] == [2.0**127, 2.0]


@pytest.mark.parametrize(("bound", "loop"), [(3, "scan"), (jnp.int32(3), "while")])
def test_fori_loop_is_a_scan_or_a_while(find, xs, bound, loop):
    def f(xs, bound):
        return lax.fori_loop(0, bound, lambda i, c: c + jnp.log(xs[i]), 0.0)  # <-- origin

    step = jax.jit(f, static_argnums=1) if loop == "scan" else jax.jit(f)
    assert find(step, xs, bound).origin.context == ((loop, 1),)


def test_while_inside_a_scan_names_both_iterations(find):
    def f(xs):
        def body(carry, x):
            def divide(s):
                return (s[0] + 1, s[1] / jnp.abs(s[0] - x))  # <-- origin

            return carry + lax.while_loop(lambda s: s[0] < 5, divide, (0, carry))[1], None

        return lax.scan(body, 1.0, xs)[0]

    assert find(jax.jit(f), jnp.array([7.0, 7.0, 3.0, 7.0])).origin.context == (("scan", 2), ("while", 3))


def test_early_iteration_of_a_long_scan_is_found(find):
    def f(x):
        def body(carry, i):
            return carry + jnp.log(jnp.abs(i - 3.0)), None  # <-- origin

        return lax.scan(body, x, jnp.arange(20_000.0))[0]

    assert find(jax.jit(f), jnp.float32(0)).origin.context == (("scan", 3),)


def test_value_that_went_from_carry_to_carry_is_followed(find):
    def f(xs):
        def body(carry, x):
            a, b, _ = carry
            return (1.0 / x, a, b), None  # <-- origin

        return lax.scan(body, (1.0, 1.0, 1.0), xs)[0][2]

    assert find(jax.jit(f), jnp.array([1.0, 0.0, 1.0, 1.0])).origin.context == (("scan", 1),)


def test_value_that_wandered_through_a_buffer_for_fifty_iterations_is_followed(find):
    def f(xs):
        def body(buffer, x):
            return jnp.roll(buffer, 1).at[0].set(jnp.log(x)), None  # <-- origin

        return lax.scan(body, jnp.zeros(60), xs)[0]

    assert find(jax.jit(f), jnp.ones(50).at[0].set(0)).origin.context == (("scan", 0),)


def test_value_that_a_delay_line_returned_after_forty_iterations_is_followed(find):
    def f(xs):
        def body(carry, x):
            return (jnp.log(x), *carry[:-1]), None  # <-- origin

        return lax.scan(body, (jnp.float32(0),) * 40, xs)[0][39]

    assert find(jax.jit(f), jnp.ones(40).at[0].set(0)).origin.context == (("scan", 0),)


def test_carry_that_recovered_is_blamed_for_its_last_illness_only(find):
    def f(xs):
        def body(carry, x):
            return jnp.where(jnp.isfinite(carry), 1.0 / x, 0.0), None  # <-- origin

        return lax.scan(body, 1.0, xs)[0]

    assert find(jax.jit(f), jnp.array([1.0, 0.0, 1.0, 1.0, 0.0])).origin.context == (("scan", 4),)


def test_carry_that_recovered_for_good_is_silent():
    start: Any = 1.0

    def f(xs):
        return lax.scan(lambda c, x: (jnp.where(jnp.isfinite(c), 1.0 / x, 0.0), None), start, xs)[0]

    assert nd.locate(jax.jit(f), jnp.array([1.0, 0.0, 1.0, 1.0])) is None


def test_nan_that_came_of_an_inf_leads_to_the_iteration_of_the_inf(find):
    def f(xs):
        def body(carry, x):
            grown = jnp.exp(x)  # <-- origin
            return carry + grown - jnp.where(x > 0, grown, 0), None

        return lax.scan(body, 0.0, xs)[0]

    report = find(jax.jit(f), jnp.array([1.0, 1.0, 100.0, 0.0]))
    assert (report.origin.context, report.chain[-1].value) == ((("scan", 2),), "nan")


def test_state_that_starts_at_inf_is_not_blamed_for_the_nan_that_the_body_makes_of_it(find):
    def f(xs):
        def body(carry, x):
            return jnp.where(x > 0, carry, carry - carry), None  # <-- origin

        return lax.scan(body, jnp.inf, xs)[0]

    origin = find(jax.jit(f), jnp.array([1.0, 1.0, 0.0, 1.0])).origin
    assert (origin.primitive, origin.value, origin.context) == ("sub", "nan", (("scan", 2),))


def test_value_read_by_a_moving_index_is_found(find):
    def f(xs):
        def body(buffer, i):
            log = jnp.log(lax.dynamic_index_in_dim(xs, i, keepdims=False))  # <-- origin
            return lax.dynamic_update_index_in_dim(buffer, log, i, 0), None

        return lax.scan(body, jnp.zeros(4), jnp.arange(4))[0]

    assert find(jax.jit(f), jnp.array([1.0, 1.0, 0.0, 1.0])).origin.context == (("scan", 2),)


@pytest.mark.parametrize("transform", [jax.grad, jax.value_and_grad])
def test_backward_pass_of_a_scan_names_the_iteration_of_the_forward_one(find, xs, transform):
    def f(xs):
        def body(carry, x):
            return carry + jnp.sqrt(x), None  # <-- origin

        return lax.scan(body, 0.0, xs)[0]

    origin = find(jax.jit(transform(f)), xs).origin
    assert (origin.primitive, origin.phase, origin.context) == ("div", "backward", (("scan", 1),))


def test_rematerialised_body_is_backward_at_its_iteration(find, xs):
    def f(w, xs):
        @jax.checkpoint
        def body(carry, x):
            return carry + jnp.sqrt(x * w), None  # <-- origin

        return lax.scan(body, 0.0, xs)[0]

    origin = find(jax.jit(jax.value_and_grad(f)), jnp.float32(1), xs).origin
    assert (origin.phase, origin.context) == ("backward", (("scan", 1),))


def test_gradient_of_a_fori_loop_is_backward_at_its_iteration(find, xs):
    def f(xs):
        return lax.fori_loop(0, 3, lambda i, c: c + jnp.sqrt(xs[i]), 0.0)  # <-- origin

    origin = find(jax.jit(jax.grad(f)), xs).origin
    assert (origin.phase, origin.context) == ("backward", (("scan", 1),))


@pytest.mark.parametrize(("loss", "primitive", "phase"), [(jnp.log, "log", "forward"), (jnp.sqrt, "div", "backward")])
def test_training_loop_in_one_scan_names_the_step_and_the_pass(find, loss, primitive, phase):
    def train(w, data):
        def step(w, x):
            value, slope = jax.value_and_grad(lambda w: loss(x * w).sum())(w)  # <-- origin
            return w - 0 * slope, value

        return lax.scan(step, w, data)

    origin = find(jax.jit(train), jnp.float32(1), jnp.ones((6, 2)).at[4, 1].set(0)).origin
    assert (origin.primitive, origin.phase, origin.context, origin.index) == (primitive, phase, (("scan", 4),), (1,))


def test_gradient_of_a_scan_inside_a_scan_of_training_steps_names_both(find, xs):
    def loss(w, xs):
        return lax.scan(lambda c, x: (c + jnp.sqrt(x * w), None), 0.0, xs)[0]  # <-- origin

    def train(w, data):
        def step(w, xs):
            value, slope = jax.value_and_grad(loss)(w, xs)
            return w - 0.1 * slope, value

        return lax.scan(step, w, data)

    origin = find(jax.jit(train), jnp.float32(1), jnp.stack([xs + 1, xs + 1, xs])).origin
    assert (origin.phase, origin.context) == ("backward", (("scan", 2), ("scan", 1)))


def test_update_inside_a_scan_of_training_steps_is_update(find):
    def train(w, data):
        def step(state, x):
            w, t = state
            value, slope = jax.value_and_grad(lambda w: (x * w) ** 2)(w)
            corrected = slope / (1 - 0.9**t)  # <-- origin
            return (w - 0.1 * corrected, t + 1), value

        return lax.scan(step, (w, 0.0), data)

    origin = find(jax.jit(train), jnp.float32(1), jnp.ones(3)).origin
    assert (origin.primitive, origin.phase, origin.context) == ("div", "update", (("scan", 0),))


@pytest.mark.parametrize("split", [True, False])
def test_random_keys_go_through_a_loop_as_rows_or_as_carry(find, split):
    def f(keys, xs):
        def body(carry, x):
            key, total = carry
            key, use = (key, x[0]) if split else jax.random.split(key)
            return (key, total + jnp.log(x[1] * (1 + jax.random.uniform(use)))), None  # <-- origin

        rows = jax.random.split(keys, 3) if split else jnp.zeros(3)
        return lax.scan(body, (keys, 0.0), (rows, xs))[0][1]

    assert find(jax.jit(f), jax.random.key(0), jnp.array([1.0, 1.0, 0.0])).origin.context == (("scan", 2),)


@pytest.mark.parametrize(("length", "found"), [(0, None), (1, (("scan", 0),))])
def test_loops_of_no_or_one_iteration(length, found):
    report = nd.locate(jax.jit(lambda x: lax.scan(lambda c, _: (c**-0.5, None), x, None, length=length)[0]), jnp.float32(0))
    assert (report and report.origin.context) == found


def test_unrolled_scan_still_counts_iterations(find, xs):
    def f(xs):
        return lax.scan(lambda c, x: (c + jnp.log(x), None), 0.0, xs, unroll=2)[0]  # <-- origin

    assert find(jax.jit(f), xs).origin.context == (("scan", 1),)


def test_map_is_a_scan_and_in_batches_a_scan_of_a_vmap(find):
    def f(xs):
        return lax.map(lambda x: jnp.log(x), xs, batch_size=2)  # <-- origin

    origin = find(jax.jit(f), jnp.array([1.0, 1.0, 1.0, 0.0])).origin
    assert (origin.context, origin.index) == ((("scan", 1), ("vmap", 2)), (1,))


def test_what_a_scan_stacked_is_counted_as_the_user_sees_it(find):
    def f(rows):
        return lax.scan(lambda carry, row: (carry, jnp.log(row)), 0.0, rows)[1]  # <-- origin

    report = find(jax.jit(f), jnp.ones((4, 3)).at[jnp.array([1, 3]), jnp.array([1, 2])].set(0))
    symptom = report.chain[-1]
    assert (symptom.primitive, symptom.index, symptom.count, symptom.size) == ("scan", (1, 1), 2, 12)
    assert [event.primitive for event in report.chain] == ["log", "scan"]


def test_what_arrived_in_the_rows_of_a_scan_is_counted_in_the_users_array():
    rows = jnp.ones((4, 3)).at[jnp.array([1, 3]), jnp.array([1, 2])].set(jnp.nan)
    origin = report_of(jax.jit(lambda rows: lax.scan(lambda carry, row: (carry, row * 2), 0.0, rows)[1]), rows).origin
    assert (origin.argument, origin.index, origin.count, origin.size) == ("rows", (1, 1), 2, 12)
