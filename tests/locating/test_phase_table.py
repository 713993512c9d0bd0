"""Steps by kind of differentiation: the primitive, phase and derivative of each one's origin, and words of the headline.

The truth is argued from what the step is, not from what JAX makes of it: what a loss, metric or state descends from is forward, also
through a predicate; what feeds only gradients is backward; what makes new parameters of gradients is the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nandetect as nd
from nandetect.render import layout

ASIDE = "computed in the forward pass, where only the gradient depends on it"
ABSORBED = "computed in the forward pass, whose results stayed finite, unlike the gradient"
AGAIN = "recomputed for the backward pass"
MODE = "in the derivative (forward mode)"
FORWARD, BACKWARD, UPDATE = "in the forward pass", "in the backward pass", "in the update"

HUGE = np.array([100.0, 1.0], np.float32)
ROOTS = np.array([1.0, 0.0, 2.0], np.float32)
ONES = np.ones(3, np.float32)


class Row(NamedTuple):
    """A step with arguments at which it breaks, and what must be said of it."""

    step: Callable[..., Any]
    args: tuple[Any, ...]
    primitive: str
    phase: str
    derivative_of: str | None
    words: str


ROWS: dict[str, Row] = {}


def row(*args: Any, primitive: str, phase: str, words: str, derivative_of: str | None = None) -> Callable[..., Any]:
    """Enter a step into the table under its own name."""

    def enter(step: Callable[..., Any]) -> Callable[..., Any]:
        ROWS[step.__name__] = Row(step, args, primitive, phase, derivative_of, words)
        return step

    return enter


def masked(x):
    return jnp.where(x < 10, jnp.exp(x), 0.0)


# A value of the forward pass that a `where` drops: the loss is 2.7 with and without it, the gradient is 0 * inf.
@row(HUGE, primitive="exp", phase="backward", words=ASIDE)
def a_masked_value(x):
    return jax.value_and_grad(lambda x: masked(x).sum())(x)


@row(HUGE, primitive="exp", phase="backward", words=ASIDE)
def a_masked_value_of_grad_alone(x):
    return jax.grad(lambda x: masked(x).sum())(x)


@row(HUGE, primitive="exp", phase="backward", words=ASIDE)
def a_masked_value_in_an_inner_jit(x):
    return jax.value_and_grad(jax.jit(lambda x: masked(x).sum()))(x)


# What the inner function returns as it is written, and nobody reads, is no loss.
@row(HUGE, primitive="exp", phase="backward", words=ASIDE)
def a_masked_value_in_an_inner_jit_that_returns_an_inf(x):
    inner = jax.jit(lambda x: (masked(x).sum(), -jnp.inf))
    return jax.value_and_grad(lambda x: inner(x)[0])(x)


@row(HUGE, primitive="exp", phase="backward", words=ASIDE)
def a_masked_value_under_vmap(x):
    return jax.vmap(jax.value_and_grad(masked))(x)


@row(HUGE, primitive="exp", phase="backward", words=ASIDE)
def a_masked_value_in_a_scan(x):
    return jax.value_and_grad(lambda x: jax.lax.scan(lambda c, r: (c + masked(r), None), 0.0, x)[0])(x)


# The value leaves the first scan and is dropped in the second.
@row(HUGE, primitive="exp", phase="backward", words=ASIDE)
def a_value_that_a_later_scan_masks(x):
    def loss(x):
        _, rows = jax.lax.scan(lambda c, r: (c, jnp.exp(r)), 0.0, x)
        return jax.lax.scan(lambda c, r: (c + jnp.where(r[0] < 10, r[1], 0.0), None), 0.0, (x, rows))[0]

    return jax.value_and_grad(loss)(x)


@row(HUGE, primitive="exp", phase="backward", words=AGAIN)
def a_masked_value_under_remat(x):
    return jax.value_and_grad(jax.checkpoint(lambda x: masked(x).sum()))(x)


@row(HUGE, primitive="exp", phase="backward", words=AGAIN)
def a_masked_value_under_remat_with_a_policy(x):
    policy = jax.checkpoint_policies.dots_saveable
    return jax.value_and_grad(jax.checkpoint(lambda x: masked(x).sum(), policy=policy))(x)


@row(HUGE, primitive="exp", phase="backward", words=AGAIN)
def a_masked_value_in_a_scan_of_remat(x):
    body = jax.checkpoint(lambda c, r: (c + masked(r), None))
    return jax.value_and_grad(lambda x: jax.lax.scan(body, 0.0, x)[0])(x)


# The log is masked, but what divides by 0 is its derivative.
@row(ROOTS, primitive="div", phase="backward", words=BACKWARD, derivative_of="sqrt")
def a_masked_root(x):
    return jax.value_and_grad(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum())(x)


@row(ROOTS, primitive="div", phase="backward", words=BACKWARD, derivative_of="sqrt")
def a_masked_root_under_remat(x):
    return jax.value_and_grad(jax.checkpoint(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum()))(x)


# The NaN is what `isfinite` sees, and so decides the loss.
@row(-np.eye(2, dtype=np.float32), primitive="cholesky", phase="forward", words=FORWARD)
def a_value_that_decides_the_loss(a):
    def loss(a):
        factor = jnp.linalg.cholesky(a)
        return jnp.where(jnp.isfinite(factor), factor, 0.0).sum()

    return jax.value_and_grad(loss)(a)


@row(HUGE, primitive="exp", phase="forward", words=FORWARD)
def a_value_that_decides_the_loss_in_a_scan(x):
    def body(total, r):
        e = jnp.exp(r)
        return total + jnp.where(jnp.isfinite(e), e, 0.0), None

    return jax.value_and_grad(lambda x: jax.lax.scan(body, 0.0, x)[0])(x)


@row(HUGE, primitive="exp", phase="forward", words=FORWARD)
def a_value_that_decides_the_loss_under_remat(x):
    @jax.checkpoint
    def loss(x):
        e = jnp.exp(x)
        return jnp.where(jnp.isfinite(e), e, 0.0).sum()

    return jax.value_and_grad(loss)(x)


# Another branch is taken for the overflow's sake.
@row(np.float32(100), primitive="exp", phase="forward", words=FORWARD)
def a_value_that_decides_a_branch(x):
    def loss(x):
        e = jnp.exp(x)
        return jax.lax.cond(e > 10, lambda x: 2 * x, lambda x: x, x) + jnp.where(x < 10, e, 0.0)

    return jax.value_and_grad(loss)(x)


# No predicate asked about the inf: 10 is the least of the two, 1 / inf is 0, as they would be of a number large enough.
@row(np.float32(100), primitive="exp", phase="backward", words=ABSORBED)
def a_value_that_is_clipped(x):
    return jax.value_and_grad(lambda x: jnp.minimum(jnp.exp(x), 10.0))(x)


@row(np.float32(-100), primitive="exp", phase="backward", words=ABSORBED)
def a_value_that_a_division_swallows(x):
    return jax.value_and_grad(lambda x: 1 / (1 + jnp.exp(-x)))(x)


# Nothing of the loss depends on it, but a metric counts it.
@row(HUGE, primitive="exp", phase="forward", words=FORWARD)
def a_masked_value_that_a_metric_counts(x):
    def loss(x):
        e = jnp.exp(x)
        return jnp.where(x < 10, e, 0.0).sum(), jnp.isfinite(e).sum()

    return jax.value_and_grad(loss, has_aux=True)(x)


@row(np.float32(0), ONES, primitive="div", phase="update", words=UPDATE)
def a_normalised_gradient(w, x):
    loss, slope = jax.value_and_grad(lambda w: ((w * x) ** 2).sum())(w)
    return loss, w - slope / jnp.abs(slope)


@row(np.float32(1), ONES, np.float32(0), primitive="div", phase="update", words=UPDATE)
def a_schedule(w, x, count):
    loss, slope = jax.value_and_grad(lambda w: ((w * x) ** 2).sum())(w)
    return loss, w - slope * (1.0 / count)


# The second loss is made of the parameters that the first update made: a loss is forward, whatever it is made of.
@row(ROOTS, ONES, primitive="log", phase="forward", words=FORWARD)
def a_second_loss_after_an_update(g, d):
    first, slope = jax.value_and_grad(lambda g: jnp.sum(g * d * 0))(g)
    g = g - slope
    second, slope = jax.value_and_grad(lambda d: jnp.sum(d * jnp.log(g)))(d)
    return first, second, d - slope


@row(ROOTS, ONES, primitive="div", phase="backward", words=BACKWARD, derivative_of="sqrt")
def a_second_gradient_after_an_update(d, g):
    first, slope = jax.value_and_grad(lambda g: jnp.sum(g * d))(g)
    g = g - slope
    second, slope = jax.value_and_grad(lambda d: jnp.sum(jnp.sqrt(d) * g))(d)
    return first, second, d - slope


# The loss is made of the inner gradient.
@row(np.float32(1), ROOTS, primitive="div", phase="forward", words=FORWARD)
def an_inner_gradient(w, x):
    return jax.value_and_grad(lambda w: jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sqrt(x * w)))(x)))(w)


@row(ONES, ONES, primitive="div", phase="backward", words=BACKWARD, derivative_of="norm")
def a_gradient_penalty(w, x):
    return jax.value_and_grad(lambda w: jnp.linalg.norm(jax.grad(lambda x: jnp.sum(w * x * 0))(x)))(w)


@row(ROOTS, primitive="log", phase="forward", words=FORWARD)
def a_constant_of_the_loss(x):
    return jax.value_and_grad(lambda w: jnp.sum(w * jax.lax.stop_gradient(jnp.log(x))))(x)


@row(np.float32(0), primitive="log", phase="forward", words=FORWARD)
def a_metric_of_a_loss_pulled_by_hand(x):
    loss, pull = jax.vjp(lambda x: (x * x).sum(), x)
    return jnp.log(loss), pull(jnp.float32(1))


# What `grad` drops is the loss itself, which is inf.
@row(np.float32(100), primitive="exp", phase="forward", words=FORWARD)
def a_dropped_loss_that_is_its_own_derivative(x):
    return jax.grad(lambda x: jnp.exp(x))(x)


# In forward mode: the value is what the step would be without differentiation, the rest is the derivative.
@row(np.float32(0), primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_jacobian(x):
    return jax.jacfwd(lambda x: jnp.sqrt(x * x))(x)


@row(ROOTS, ONES, primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_tangent(x, t):
    return jax.jvp(lambda x: jnp.sqrt(x), (x,), (t,))


@row(ROOTS, ONES, primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_tangent_of_a_function_that_is_handed_on(x, t):
    return jax.jvp(jnp.sqrt, (x,), (t,))[1]


@row(ROOTS, ONES, primitive="log", phase="forward", words=FORWARD)
def a_value_beside_a_tangent(x, t):
    return jax.jvp(lambda x: jnp.log(x), (x,), (t,))


@row(ROOTS, ONES, primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_linear_map(x, t):
    value, linear = jax.linearize(lambda x: jnp.sqrt(x), x)
    return value, linear(t)


@row(ROOTS, ONES, primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_tangent_in_an_inner_jit(x, t):
    return jax.jvp(jax.jit(lambda x: jnp.sqrt(x)), (x,), (t,))


@row(ROOTS, ONES, primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_tangent_in_a_scan(x, t):
    return jax.jvp(lambda x: jax.lax.scan(lambda c, r: (c + jnp.sqrt(r), c), 0.0, x), (x,), (t,))


@row(ROOTS, ONES, primitive="log", phase="forward", words=FORWARD)
def a_value_in_a_scan_beside_a_tangent(x, t):
    return jax.jvp(lambda x: jax.lax.scan(lambda c, r: (c + jnp.log(r), None), 0.0, x)[0], (x,), (t,))


@row(np.float32(0), primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_tangent_in_a_while(x):
    def f(x):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + jnp.sqrt(x)), (0, x))[1]

    return jax.jvp(f, (x,), (jnp.float32(1),))


@row(np.float32(0), primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_tangent_in_a_branch(x):
    return jax.jvp(lambda x: jax.lax.cond(x < 1, lambda x: jnp.sqrt(x), lambda x: x, x), (x,), (jnp.float32(1),))


@row(ROOTS, ONES, primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_tangent_under_remat(x, t):
    return jax.jvp(jax.checkpoint(lambda x: jnp.sqrt(x).sum()), (x,), (t,))


# The user's own rule: it is no derivative of anything that was written on its line.
@row(ROOTS, ONES, primitive="div", phase="backward", words=MODE)
def a_rule_for_tangents(x, t):
    @jax.custom_jvp
    def square(x):
        return x * x

    square.defjvp(lambda primals, tangents: (square(primals[0]), tangents[0] / primals[0]))
    return jax.jvp(lambda x: square(x), (x,), (t,))


@row(np.eye(3, dtype=np.float32), primitive="integer_pow", phase="backward", words=MODE, derivative_of="eigvalsh")
def a_hessian_of_eigenvalues(a):
    return jax.hessian(lambda a: jnp.linalg.eigvalsh(a)[0])(a)


@row(np.zeros(3, np.float32), primitive="pow", phase="backward", words=MODE, derivative_of="pow")
def a_hessian(x):
    return jax.hessian(lambda x: jnp.sum(x**1.5))(x)


@row(np.zeros(3, np.float32), primitive="pow", phase="backward", words=BACKWARD, derivative_of="pow")
def a_hessian_in_reverse(x):
    return jax.jacrev(jax.jacrev(lambda x: jnp.sum(x**1.5)))(x)


@row(np.zeros(3, np.float32), primitive="pow", phase="backward", words=MODE, derivative_of="pow")
def a_hessian_in_forward_mode(x):
    return jax.jacfwd(jax.jacfwd(lambda x: jnp.sum(x**1.5)))(x)


@row(np.zeros(3, np.float32), ONES, primitive="pow", phase="backward", words=MODE, derivative_of="pow")
def a_product_with_a_hessian(x, v):
    return jax.jvp(jax.grad(lambda x: jnp.sum(x**1.5)), (x,), (v,))


@row(np.zeros(3, np.float32), ROOTS, primitive="pow", phase="backward", words=MODE, derivative_of="pow")
def a_product_with_a_hessian_in_a_step_that_trains(w, v):
    def loss(w):
        return jnp.sum(w**1.5 + w * w)

    value, slope = jax.value_and_grad(loss)(w)
    curvature = jax.jvp(jax.grad(loss), (w,), (v,))[1]
    return value, w - slope / (1 + jnp.abs(curvature))


@row(np.float32(1), ROOTS, primitive="div", phase="backward", words=MODE, derivative_of="sqrt")
def a_jacobian_beside_a_step_that_trains(w, x):
    loss, slope = jax.value_and_grad(lambda w: jnp.sum((w * x) ** 2))(w)
    return loss, w - slope, jax.vmap(jax.jacfwd(lambda x: jnp.sqrt(w * x)))(x)


# The loss is made of the inner derivative.
@row(np.float32(1), ROOTS, primitive="div", phase="forward", words=FORWARD)
def a_loss_of_a_tangent(w, x):
    return jax.value_and_grad(lambda w: jnp.sum(jax.vmap(jax.jacfwd(lambda x: jnp.sqrt(w * x)))(x) ** 2))(w)


@row(ROOTS, ONES, primitive="div", phase="backward", words=BACKWARD, derivative_of="sqrt")
def a_gradient_of_a_tangent(x, t):
    return jax.grad(lambda x: jnp.sum(jax.jvp(lambda y: jnp.sqrt(y), (x,), (t,))[1]))(x)


# A Newton step is an update by a derivative in forward mode.
@row(np.float32(0), primitive="div", phase="update", words=UPDATE)
def a_newton_step(x):
    def f(x):
        return x * x - 1

    return x - f(x) / jax.jacfwd(f)(x)


@row(np.float32(0), primitive="div", phase="update", words=UPDATE)
def newton_steps_in_a_scan(x):
    def f(x):
        return x * x - 1

    return jax.lax.scan(lambda x, _: (x - f(x) / jax.jacfwd(f)(x), None), x, None, length=3)[0]


@row(ROOTS, primitive="log", phase="forward", words=FORWARD)
def a_metric_beside_the_loss(x):
    return jax.value_and_grad(lambda w: (jnp.sum(w * w), jnp.log(w)), has_aux=True)(x)


# A residual of the user's own rule, which only the rule for gradients reads.
@row(ROOTS, primitive="div", phase="backward", words=BACKWARD)
def a_residual_of_a_rule(x):
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, 1 / x), lambda inverse, out: (out * inverse,))
    return jax.value_and_grad(lambda x: doubled(x).sum())(x)


# The root is found without a division; its derivative is a linear solve by the slope there, which is 0.
@row(np.float32(0), primitive="div", phase="backward", words=BACKWARD)
def a_root_differentiated_implicitly(x):
    def root(x):
        return jax.lax.custom_root(lambda y: y * y * y - x, 0.0, lambda g, y: y, lambda g, y: y / g(1.0))

    return jax.value_and_grad(root)(x)


# Two players: each has a loss and a gradient, and a step of its own.
@row(ONES, ROOTS, primitive="div", phase="update", words=UPDATE)
def two_players(g, d):
    loss, slope = jax.value_and_grad(lambda g: jnp.sum(g * d))(g)
    other, slope_of_other = jax.value_and_grad(lambda d: jnp.sum(d * g * 0))(d)
    return loss, other, g - slope, d - slope_of_other / jnp.abs(slope_of_other)


@row(np.float32(1), np.float32(-1e4), ONES, primitive="sqrt", phase="update", words=UPDATE)
def an_optimizer_of_a_library(w, moment, x):
    optimizer = optax.adam(1e-2)
    loss, slope = jax.value_and_grad(lambda w: ((w * x) ** 2).sum())(w)
    state: Any = optimizer.init(w)
    adam, rest = state
    updates, _ = optimizer.update(slope, (adam._replace(nu=moment), rest), w)
    return loss, optax.apply_updates(w, updates)


@pytest.mark.parametrize("name", ROWS)
def test_the_origin_is_told_in_its_phase(name):
    step, args, primitive, phase, derivative_of, words = ROWS[name]
    report = nd.locate(jax.jit(step), *map(jnp.asarray, args))
    assert report is not None and report.origin.source is not None
    assert report.origin.source.file == __file__
    told = report.origin
    assert (told.primitive, told.phase, told.derivative_of) == (primitive, phase, derivative_of)
    assert words in layout.headline(report)
    if derivative_of is None:
        assert "derivative of" not in str(report)
