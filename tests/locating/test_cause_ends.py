"""A cause ends where a person would look: on the operation of an iteration, the term, the branch, the call of a library."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax
from marked import Program, cause_of, marked_line, report_of

PROGRAMS: list[Program] = []


def program(make: Program) -> Program:
    """Enter a program whose deadly operand an earlier operation made."""
    PROGRAMS.append(make)
    return make


@program
def descent_that_overshoots():
    def step(x, rate):
        def body(x, _):
            slope = 2.0 * x + 3.0
            x = x - rate * slope  # <-- cause
            return x, jnp.sqrt(x)

        return lax.scan(body, x, None, length=4)[1].sum()

    return step, (jnp.float32(1.0), jnp.float32(0.6))


@program
def power_iteration_without_a_norm():
    def step(v, a):
        def body(i, v):
            v = a @ v  # <-- cause
            return v * v[0]

        return lax.fori_loop(0, 60, body, v).sum()

    return step, (jnp.ones(3), 2.0 * jnp.ones((3, 3)))


@program
def halving_until_nothing_is_left():
    def step(x):
        def body(carry):
            i, gap = carry
            return i + 1, gap * 1e-4  # <-- cause

        _, gap = lax.while_loop(lambda c: c[0] < 14, body, (0, x))
        return 1.0 / gap

    return step, (jnp.float32(1.0),)


@program
def inner_loop_in_an_outer_one():
    def step(rates):
        def outer(level, rate):
            def inner(k, level):
                return level - rate  # <-- cause

            level = lax.fori_loop(0, 3, inner, level)
            return level, level

        _, levels = lax.scan(outer, jnp.float32(1.0), rates)
        return jnp.log(levels).sum()

    return step, (jnp.array([0.1, 0.1, 0.5]),)


@program
def stacked_row_of_an_earlier_loop():
    def step(x):
        def body(c, row):
            c = 0.5 * c
            return c, jnp.exp(row * 100.0)  # <-- cause

        _, weights = lax.scan(body, 1.0, x)
        return jnp.log(weights / weights.sum()).mean()

    return step, (jnp.array([0.1, -2.0, 0.3]),)


@program
def too_many_terms_for_half():
    def step(x):
        h = x.astype(jnp.float16)
        squares = h * h  # <-- cause
        return jnp.sum(squares, dtype=jnp.float16)

    return step, (30.0 * jnp.ones(200),)


def one_entry_of_a_table():
    def step(table, ids):
        rates = table[ids]
        return jnp.log(rates).sum()

    return step, (jnp.array([0.3, 0.2, 0.5, 0.1, 0.0]), jnp.array([0, 4, 2]))


@program
def what_a_library_loss_returned():
    def step(logits, labels):
        losses = optax.softmax_cross_entropy(logits, labels)  # <-- cause
        return jnp.log(losses).mean()

    return step, (jnp.array([[200.0, 0.0], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]]))


@program
def clipped_by_a_predicate():
    def step(x, top):
        keep = x < top
        kept = jnp.where(keep, x, 0.0)  # <-- cause
        return (1.0 / kept).sum()

    return step, (jnp.array([1.0, 2.0, 9.0]), jnp.float32(5.0))


@program
def masked_row_of_scores():
    def step(scores, seen):
        masked = jnp.where(seen, scores, -jnp.inf)  # <-- cause
        top = jnp.max(masked, axis=1, keepdims=True)
        return jnp.exp(masked - top).sum()

    return step, (jnp.ones((2, 3)), jnp.array([[True, True, False], [False, False, False]]))


@program
def the_term_of_a_sum_that_is_large():
    def step(x, y):
        z = x * 3.0
        total = z[0] + y**4 + 1.0  # <-- cause
        return jnp.exp(total)

    return step, (jnp.ones(3), jnp.float32(6.0))


@program
def branch_of_a_cond():
    def step(x):
        def low(x):
            return x - 2.0  # <-- cause

        def high(x):
            return x

        return jnp.sqrt(lax.cond(x < 5.0, low, high, x))

    return step, (jnp.float32(1.0),)


@partial(jax.jit, static_argnums=1)
def _normalised(x, axis):
    return x / jnp.linalg.norm(x, axis=axis, keepdims=True)


@program
def a_dead_layer_below_a_norm():
    def step(w, x):
        h = jax.nn.relu(x @ w)  # <-- cause
        return _normalised(h, 1).sum()

    return step, (jnp.array([[-1.0, -2.0], [-1.0, 0.5]]), jnp.array([[1.0, 1.0], [0.1, 1.0]]))


@program
def both_terms_of_a_sum_are_zero():
    def step(counts, z):
        prior = jnp.exp(z)  # <-- cause
        return jax.lax.lgamma(counts + prior).sum()

    return step, (jnp.array([0.0, 3.0]), jnp.array([-200.0, 0.5]))


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_the_cause_ends_on_the_marked_line(make):
    source = report_of(make).cause[-1].source
    assert source is not None
    assert source.line == marked_line(make)


def lines(make: Program) -> str:
    """The lines of the causes, with the marked line's number written as `here`."""
    return cause_of(report_of(make)).replace(f"line {marked_line(make)}", "here")


def test_an_earlier_iteration_is_told_with_its_number_and_line():
    # 1e-4 ** 10 is below 1.2e-38, the smallest normal float32, and flushed to 0: the tenth iteration, counted from 0 the ninth.
    told = "`gap * 1e-4` (here, while iteration 9), underflows to 0 in float32: 9.999998e-37 * 0.0001"
    assert lines(halving_until_nothing_is_left) == told


def test_of_loops_in_loops_each_iteration_is_told():
    # After 1 - 3 * 0.1 - 3 * 0.1 = 0.4 the first inner iteration of the third outer one gives -0.1.
    told = lines(inner_loop_in_an_outer_one)
    assert told.startswith("`level - rate` (here, iteration 2 of the scan at line ")
    assert "iteration 0 of the scan at line" in told
    assert told.endswith("gives -0.1: 0.39999992 - 0.5")


def test_growth_in_a_loop_is_told_with_what_it_began_with():
    def doubled():
        def step(x):
            def body(x, _):
                more = x + 1.0
                return more + x, None  # <-- cause

            return lax.scan(body, x, None, length=140)[0]

        return step, (jnp.float32(0.5),)

    # x becomes 2 x + 1, so that it is 1.5 * 2**n - 1 after n iterations: beyond 3.4e38, the largest float32, at n = 128.
    told = "`more + x` (here, scan iteration 126), grows to 2.552e+38, it was 0.5 before the first of 127 iterations: 1.276e+38 + 1.276e+38"
    assert lines(doubled) == told


def test_a_sum_that_overflows_by_the_number_of_its_terms_says_so():
    line = marked_line(too_many_terms_for_half)
    assert cause_of(report_of(too_many_terms_for_half)) == (
        f"`jnp.sum(squares, dtype=jnp.float16)` (line {line + 1}), 200 terms of up to 900 add up to 180000, float16 ends at 65504"
        f" <- `h * h` (line {line}, at [0]), grows to 900: 30.0 * 30.0"
    )


def test_a_number_read_by_an_index_is_told_with_the_index():
    assert cause_of(report_of(one_entry_of_a_table)) == "`table[4]`, 0 in the input, read by index 4: f32[5], min 0, max 0.5, 1 zero"


def test_what_a_library_returned_is_told_with_its_function():
    assert lines(what_a_library_loss_returned) == (
        "`optax.softmax_cross_entropy(logits, labels)` (here, at [0, 0]), cancels to 0, inside `softmax_cross_entropy`, which returned 0:"
        " 200.0 - 200.0"
    )


def test_a_selection_is_told_with_its_predicate_and_values():
    assert lines(clipped_by_a_predicate) == "`jnp.where(keep, x, 0.0)` (here, at [2]), 0 is written there, `keep` is False: 9.0 < 5.0"


def test_of_two_zeros_that_are_added_the_one_that_underflowed_is_told():
    assert lines(both_terms_of_a_sum_are_zero) == "`jnp.exp(z)` (here, at [0]), underflows to 0 in float32: exp(-200.0)"
