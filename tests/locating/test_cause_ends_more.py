"""Causes, further programs: state that is kept or reset, lanes, casts, sorted and picked elements, matrices, own rules, remat."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from marked import Program, cause_of, marked_line, report_of

PROGRAMS: list[Program] = []


def program(make: Program) -> Program:
    """Enter a program whose deadly operand an earlier operation made."""
    PROGRAMS.append(make)
    return make


@program
def momentum_that_builds_up():
    def step(w, g):
        def body(state, _):
            w, m = state
            m = 3.0 * m + g  # <-- cause
            return (w - m, m), None

        (w, _), _ = lax.scan(body, (w, jnp.zeros(2)), None, length=90)
        return jnp.sum(w)

    return step, (jnp.ones(2), jnp.array([0.5, 1.0]))


@program
def newton_to_a_flat_place():
    def step(x):
        def body(state):
            i, x = state
            slope = 2.0 * (x - 1.0)
            return i + 1, x - (x - 1.0) ** 2 / slope - (x - 1.0) / 2  # <-- cause

        return lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1]

    return step, (jnp.float32(2.0),)


def survival_that_runs_out():
    def step(hazards):
        def body(alive, h):
            alive = alive * (1.0 - h)  # <-- cause
            return alive, jnp.log(alive)

        return lax.scan(body, 1.0, hazards)[1].sum()

    return step, (jnp.array([0.2, 0.1, 1.0, 0.3]),)


@program
def grid_of_two_loops():
    def step(x):
        def row(i, total):
            def cell(j, total):
                return total * 40.0 + x  # <-- cause

            return lax.fori_loop(0, 10, cell, total)

        return jnp.exp(lax.fori_loop(0, 3, row, 0.0))

    return step, (jnp.float32(1.0),)


@program
def state_kept_while_a_flag_holds():
    def step(levels):
        def body(state, level):
            held = jnp.where(level > 0.5, level, state)
            rest = held - 0.9  # <-- cause
            return held, jnp.sqrt(rest)

        return lax.scan(body, 1.0, levels)[1].sum()

    return step, (jnp.array([0.95, 0.1, 0.6, 0.2]),)


@program
def ages_that_are_equal():
    def step(ages):
        order = jnp.argsort(ages)
        gaps = jnp.diff(ages[order])  # <-- cause
        return jnp.sum(1.0 / gaps)

    return step, (jnp.array([3.0, 1.0, 7.0, 3.0]),)


@program
def dot_with_a_huge_weight():
    def step(w, x):
        logits = w @ x + 0.1  # <-- cause
        return jnp.exp(logits).sum()

    return step, (jnp.array([[1.0, 2.0], [150.0, 0.0]]), jnp.array([1.0, 1.0]))


def picked_by_the_largest():
    def step(p, q):
        best = jnp.argmax(q)
        share = p[best] / p.sum()
        return -jnp.log(share)

    return step, (jnp.array([2.0, 0.0, 1.0]), jnp.array([0.1, 0.8, 0.1]))


@program
def floor_of_a_cast():
    def step(x):
        bins = (x * 4.0).astype(jnp.int32)  # <-- cause
        widths = 1.0 / bins
        return widths.sum()

    return step, (jnp.array([0.9, 0.1, 0.5]),)


@program
def a_cosine_of_one_vector():
    def step(a, b):
        a = a / jnp.sqrt(jnp.vdot(a, a))
        b = b / jnp.sqrt(jnp.vdot(b, b))
        cosine = jnp.vdot(a, b)  # <-- cause
        return jnp.arccos(cosine)

    def angle(a):
        return step(a, a)

    return jax.grad(angle), (jnp.array([1.0, 0.0, 0.0]),)


@program
def covariance_that_lost_its_rank():
    def step(x):
        c = x - jnp.mean(x, axis=0)
        cov = c.T @ c / c.shape[0]  # <-- cause
        return jnp.sum(jnp.linalg.cholesky(cov))

    return step, (jnp.array([[1.0, 2.0, 4.0], [2.0, 4.0, 1.0]]),)


def a_window_without_a_count():
    def step(x, mask):
        total = jnp.cumsum(x * mask)
        count = jnp.cumsum(mask)
        return (total / count).sum()

    return step, (jnp.ones(4), jnp.array([0.0, 1.0, 1.0, 0.0]))


@program
def a_rectifier_under_vmap():
    def one(row):
        excess = jnp.maximum(row - 3.0, 0.0)  # <-- cause
        return jnp.log(jnp.sum(excess))

    def step(x):
        return jax.vmap(one)(x).sum()

    return step, (jnp.array([[1.0, 5.0], [2.0, 0.5]]),)


@program
def variance_in_one_pass_under_remat():
    def step(x):
        @jax.checkpoint
        def spread(x):
            square = jnp.mean(jnp.square(x))
            centre = jnp.square(jnp.mean(x))
            return jnp.sqrt(jnp.subtract(square, centre))  # <-- cause

        return spread(x)

    return jax.jit(jax.value_and_grad(step)), (jnp.full(7, 1000.1),)


@program
def noise_of_an_unstable_filter():
    def step(ys, theta):
        def body(noise, y):
            noise = y - theta * noise  # <-- cause
            return noise, noise**2

        return lax.scan(body, 0.0, ys)[1].mean()

    return step, (jnp.ones(200), jnp.float32(3.0))


@program
def newton_lanes():
    def root(x):
        def body(s):
            i, x = s
            slope = 3.0 * x**2 - 3.0
            return i + 1, x - (x**3 - 3.0 * x + 2.0) / slope

        return lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1]

    def step(xs):
        starts = jnp.round(xs)  # <-- cause
        return jax.vmap(root)(starts).sum()

    return step, (jnp.array([0.3, 1.2, 2.6]),)


@program
def softplus_inverse():
    def step(x):
        grown = jnp.exp(x)  # <-- cause
        return jnp.log(grown - 1.0).sum()

    return step, (jnp.array([1e-9, 1.0]),)


@program
def triangle_of_learned_scales():
    def step(raw, y):
        scale = jnp.exp(raw)  # <-- cause
        L = jnp.tril(jnp.ones((3, 3)), -1) + jnp.diag(scale)
        return jax.scipy.linalg.solve_triangular(L, y, lower=True).sum()

    return step, (jnp.array([0.0, -200.0, 0.1]), jnp.ones(3))


@program
def empty_bin():
    def step(x, ids):
        counts = jnp.bincount(ids, length=4)  # <-- cause
        sums = jax.ops.segment_sum(x, ids, 4)
        return (sums / counts).sum()

    return step, (jnp.ones(4), jnp.array([0, 1, 1, 3]))


@program
def points_that_meet():
    def step(x, v):
        def body(x, _):
            d = x[1] - x[0]  # <-- cause
            x = x + v / jnp.sqrt(d * d)
            return x, None

        return lax.scan(body, x, None, length=4)[0].sum()

    return step, (jnp.array([0.0, 2.0]), jnp.array([2.0, -2.0]))


@program
def state_reset_in_a_branch():
    def step(xs):
        def body(s, x):
            kept = lax.cond(x < 0.0, lambda s: s * 0.0, lambda s: s, s)  # <-- cause
            return kept, 1.0 / s

        return lax.scan(body, 2.0, xs)[1].sum()

    return step, (jnp.array([1.0, -1.0, 1.0, 1.0, 1.0]),)


@program
def residual_of_an_own_rule():
    @jax.custom_vjp
    def inverse_root(h):
        return jnp.sqrt(h)

    inverse_root.defvjp(lambda h: (jnp.sqrt(h), jnp.sqrt(h)), lambda r, g: (0.5 * g / r,))

    def step(w, x):
        h = jnp.maximum(x @ w - 1.0, 0.0)  # <-- cause
        return inverse_root(h).sum()

    return jax.grad(step), (jnp.array([1.0, 1.0]), jnp.array([[2.0, 1.0], [0.1, 0.2]]))


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_the_cause_ends_on_the_marked_line(make):
    source = report_of(make).cause[-1].source
    assert source is not None
    assert source.line == marked_line(make)


def test_an_element_picked_by_argmax_is_told_with_its_index():
    assert cause_of(report_of(picked_by_the_largest)) == "`p[1]`, 0 in the input, read by index 1: f32[3], min 0, max 2, 1 zero"


def test_a_running_count_of_nothing_is_told_with_the_first_element():
    assert cause_of(report_of(a_window_without_a_count)) == "`mask[0]`, 0 in the input: f32[4], min 0, max 1, 2 zeros"


def test_a_factor_that_cancels_is_told_before_the_row_that_it_came_from():
    # 1 - 1 is 0 on the marked line; the 1 stands in the row of that iteration.
    (factor, row) = report_of(survival_that_runs_out).cause
    assert factor.source is not None
    assert (factor.source.line, factor.reason, factor.context) == (marked_line(survival_that_runs_out), "cancels to 0", (("scan", 2),))
    assert (row.argument, row.index, row.reason) == ("hazards", (2,), "1 in the input")
