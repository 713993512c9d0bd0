"""Forward, backward or update: decided by where a value comes from and goes to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import nandetect as nd


def quadratic(w, x):
    return jnp.sum((w * x) ** 2)


def test_normalised_gradient_is_update(find):
    @jax.jit
    def step(w, x):
        loss, slope = jax.value_and_grad(quadratic)(w, x)
        slope = slope / jnp.abs(slope)  # <-- origin
        return loss, w - slope

    origin = find(step, jnp.float32(0), jnp.ones(3)).origin
    assert (origin.primitive, origin.phase, origin.reason) == ("div", "update", "zero divided by zero")


def test_learning_rate_schedule_is_update(find, xs):
    @jax.jit
    def step(w, x, count):
        loss, slope = jax.value_and_grad(quadratic)(w, x)
        rate = 1.0 / count  # <-- origin
        return loss, w - rate * slope

    assert find(step, jnp.float32(1), xs, jnp.float32(0)).origin.phase == "update"


def test_weight_decay_that_sees_the_parameters_alone_is_update(find, xs):
    @jax.jit
    def step(w, x):
        loss, slope = jax.value_and_grad(quadratic)(w, x)
        decay = jnp.sqrt(w - 5.0)  # <-- origin
        return loss, w - slope - 0.1 * decay

    assert find(step, jnp.float32(1), xs).origin.phase == "update"


def test_second_moment_that_overflows_is_update(find):
    @jax.jit
    def step(w, moment, x):
        loss, slope = jax.value_and_grad(lambda w: jnp.sum(w * x))(w)
        return loss, w, 0.9 * moment + 0.1 * slope**2  # <-- origin

    origin = find(step, jnp.float32(1), jnp.float32(0), jnp.array([1e30])).origin
    assert (origin.phase, origin.value) == ("update", "inf")


def test_metric_of_the_gradients_is_update(find):
    @jax.jit
    def step(w, x):
        loss, slope = jax.value_and_grad(quadratic)(w, x)
        return loss, slope, jnp.log(jnp.abs(slope))  # <-- origin

    assert find(step, jnp.float32(0), jnp.ones(3)).origin.phase == "update"


def test_jitted_clip_inside_the_update_is_update_on_its_own_line(find, xs):
    @jax.jit
    def clip(slope):
        return slope / jnp.abs(slope)  # <-- origin

    @jax.jit
    def step(w, x):
        loss, slope = jax.value_and_grad(quadratic)(w, x)
        return loss, w - clip(slope)

    assert find(step, jnp.float32(0), xs).origin.phase == "update"


def test_optimizer_of_a_library_is_update_on_the_line_that_called_it(find, xs):
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(w, state, x):
        loss, slope = jax.value_and_grad(quadratic)(w, x)
        updates, state = optimizer.update(slope, state, w)  # <-- origin
        return loss, optax.apply_updates(w, updates), state

    w = jnp.float32(1)
    state: Any = optimizer.init(w)
    adam, rest = state
    origin = find(step, w, (adam._replace(nu=jnp.float32(-1e4)), rest), xs).origin
    assert (origin.primitive, origin.phase) == ("sqrt", "update")


@pytest.mark.parametrize("differentiated", [True, False])
def test_preprocessing_of_the_batch_is_forward(find, xs, differentiated):
    @jax.jit
    def step(w, x):
        x = jnp.log(x)  # <-- origin
        return (jax.value_and_grad(quadratic) if differentiated else quadratic)(w, x)

    assert find(step, jnp.float32(1), xs).origin.phase == "forward"


def test_metric_that_the_loss_returns_beside_itself_is_forward(find, xs):
    def loss(w, x):
        return quadratic(w, x), {"log": jnp.log(x)}  # <-- origin

    report = find(jax.jit(jax.value_and_grad(loss, has_aux=True)), jnp.float32(1), xs)
    assert (report.origin.phase, report.symptoms) == ("forward", ("[0][1]['log']",))


def test_step_that_does_not_differentiate_has_no_update(find, xs):
    f = jax.jit(lambda w, x: (w * x, jnp.log(x)))  # <-- origin
    assert find(f, jnp.float32(1), xs).origin.phase == "forward"


def test_meta_gradient_through_an_optimizer_is_backward(find):
    optimizer = optax.adam(1e-2)

    def outer(w, x):
        slope = jax.grad(quadratic)(w, x)
        updates, _ = optimizer.update(slope, optimizer.init(w))  # <-- origin
        return quadratic(w + updates, x)

    assert find(jax.jit(jax.value_and_grad(outer)), jnp.array([0.0, 1.0]), jnp.ones(2)).origin.phase == "backward"


@pytest.mark.parametrize("origin", ["of the parameters", "beside them"])
def test_the_loss_of_a_loop_that_nobody_returns_is_forward(origin):
    def loss(w, x):
        if origin == "beside them":
            return jnp.mean(w * ((x - x.mean()) / x.std()) * x)
        return jnp.mean(jnp.exp(w * x))

    def body(w, x):
        value, slope = jax.value_and_grad(loss)(w, x)
        return w - 0.01 * slope, value

    @jax.jit
    def train(w, batches):
        return jax.lax.scan(body, w, batches)[0]

    bad = jnp.ones(4) if origin == "beside them" else jnp.full(4, 200.0)
    report = nd.locate(train, jnp.float32(1), jnp.stack([jnp.arange(4.0)] * 5 + [bad]))
    assert report is not None
    assert report.origin.phase == "forward"
    assert report.origin.context == (("scan", 5),)


def test_the_coefficient_of_a_derivative_that_stops_is_no_loss_that_a_plain_grad_drops():
    def loss(x):
        guess = jax.lax.stop_gradient(jnp.sqrt(x - 5000.0))
        masked = jnp.where(x < 8.0, jnp.exp(x), 0.0)
        return jnp.sum(masked + jnp.where(jnp.isfinite(guess), guess, x))

    report = nd.locate(jax.grad(loss), jnp.full(3, 1000.0))
    assert report is not None
    assert (report.origin.primitive, report.origin.phase) == ("exp", "backward")


def test_what_breaks_a_state_by_its_value_and_by_its_derivative_is_forward():
    def mean(v, seen):
        return v * (jnp.sum(v * seen) / jnp.sum(seen))  # <-- origin

    @jax.jit
    def simulate(y, seen):
        value, pull = jax.vjp(lambda v: mean(v, seen), y)
        (slope,) = pull(jnp.ones(3))
        return 0.5 * slope / (1.0 + jnp.abs(slope)) + 0.5 * value

    report = nd.locate(simulate, jnp.arange(3.0), jnp.zeros(3))
    assert report is not None
    assert (report.origin.primitive, report.origin.phase, report.origin.role) == ("div", "forward", None)


def test_a_residual_that_a_loop_stacks_for_its_gradient_is_no_loss_that_it_drops():
    def gate(x):
        return 1.0 / (1.0 + jnp.exp(-x))  # <-- origin

    def cell(p, carry, x):
        h, c = carry
        c = gate(p * h + x) * c + jnp.tanh(h)
        return (jnp.tanh(c), c), None

    def loss(p, xs):
        (h, _), _ = jax.lax.scan(lambda carry, x: cell(p, carry, x), (jnp.array(1.0), jnp.array(1.0)), xs)
        return h

    report = nd.locate(jax.jit(jax.value_and_grad(loss)), jnp.float32(1), jnp.array([0.0, -200.0, 0.0]))
    assert report is not None
    assert (report.origin.primitive, report.origin.phase, report.origin.role) == ("exp", "backward", "absorbed")
