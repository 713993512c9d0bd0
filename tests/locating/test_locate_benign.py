"""What exists inside, or passes through, and hurts nobody: never a fault."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import nandetect as nd

KEPT = jnp.array([True, False, True])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.where(x > 0, jnp.log(x), 0.0),
        lambda x: jnp.maximum(jnp.log(x), -10.0),
        lambda x: 1 / (1 / x),
        lambda x: jnp.log(x) * (x > 0),
        lambda x: jnp.sort(jnp.log(x))[1:],
        lambda x: jax.lax.top_k(jnp.log(x), 2)[0],
        lambda x: jnp.zeros(3).at[jnp.array([0, 7, 2])].set(1 / x),
        lambda x: jnp.exp(jnp.log(x)),
        lambda x: jnp.tanh(1 / x),
        lambda x: jnp.isnan(x / x),
        lambda x: jnp.log(x).astype(jnp.int32),
        lambda x: jnp.argmax(x / x),
        lambda x: (jnp.log(x)[:0], x),
    ],
)
def test_non_finite_value_that_no_result_descends_from_is_silent(function, xs):
    assert nd.locate(jax.jit(lambda x: function(x)), xs) is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.softmax(jnp.where(KEPT, x, -jnp.inf)),
        lambda x: jax.nn.logsumexp(jnp.where(KEPT, x, -jnp.inf)),
        lambda x: jnp.max(jnp.where(KEPT, x, -jnp.inf)),
    ],
)
def test_masks_of_minus_infinity_are_silent_forward_and_backward(function, xs):
    assert nd.locate(jax.jit(jax.value_and_grad(lambda x: function(x).sum())), xs) is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.where(KEPT, jax.nn.log_softmax(x), -jnp.inf),
        lambda x: jax.nn.log_softmax(jnp.where(KEPT, x, -jnp.inf)),
        lambda x: x + jnp.where(KEPT, 0.0, -jnp.inf),
    ],
)
def test_masked_log_probabilities_may_be_returned(function, xs):
    assert nd.locate(jax.jit(lambda x: function(x)), xs) is None


def test_masked_log_probabilities_may_be_returned_beside_a_gradient(xs):
    def loss(w, x):
        logp = jax.nn.log_softmax(jnp.where(KEPT, w * x, -jnp.inf))
        return -logp[0], logp

    assert nd.locate(jax.jit(jax.value_and_grad(loss, has_aux=True)), jnp.float32(1), xs) is None


def test_mask_of_minus_infinity_may_arrive_and_be_returned(xs):
    f = jax.jit(lambda scores, mask: (jax.nn.softmax(scores + mask), scores + mask))
    assert nd.locate(f, xs, jnp.array([0.0, -jnp.inf, 0.0])) is None


def test_best_loss_that_is_still_infinite_is_state():
    f = jax.jit(lambda best, loss: (jnp.minimum(best, loss), best))
    assert nd.locate(f, jnp.float32(jnp.inf), jnp.float32(1)) is None


def test_best_loss_that_starts_infinite_in_a_scan_is_state(xs):
    start: Any = jnp.inf
    f = jax.jit(lambda xs: jax.lax.scan(lambda best, x: (jnp.minimum(best, x), best), start, xs))
    assert nd.locate(f, xs) is None


def test_empty_segment_of_a_maximum_is_state(xs):
    assert nd.locate(jax.jit(lambda x: jax.ops.segment_max(x, jnp.array([0, 0, 1]), 3)), xs) is None


def test_overflow_that_only_the_uncompiled_program_has_is_silent():
    f, x = jax.jit(lambda x: (x * 300) / 300), jnp.array([300.0], jnp.float16)
    if not jnp.isfinite(f(x)).all():
        pytest.skip("this compiler does not take the two factors together")
    assert nd.locate(f, x) is None


def test_dynamic_loss_scale_that_skips_the_step_is_silent(xs):
    @jax.jit
    def step(w, scale, x):
        slope = jax.grad(lambda w: (w.astype(jnp.float16) * x.astype(jnp.float16)).astype(jnp.float32).sum() * scale)(w) / scale
        sound = jnp.isfinite(slope)
        return jnp.where(sound, w - slope, w), jnp.where(sound, 2 * scale, scale / 2)

    assert nd.locate(step, jnp.float32(1), jnp.float32(2.0**24), xs) is None


def test_update_that_optax_skipped_is_silent(xs):
    optimizer = optax.apply_if_finite(optax.sgd(0.1), 5)
    w = jnp.float32(0)

    @jax.jit
    def step(w, state, x):
        updates, state = optimizer.update(jax.grad(lambda w: jnp.sum(jnp.sqrt(w * x)))(w), state, w)
        return w + updates, state

    assert nd.locate(step, w, optimizer.init(w), xs) is None


def test_benign_birth_beside_a_fault_is_listed_and_not_blamed(find, xs):
    @jax.jit
    def f(x):
        masked = jnp.where(x > 0, jnp.log(x), 0.0)
        return masked.sum(), 1.0 / x[1]  # <-- origin

    report = find(f, xs)
    assert report.symptoms == ("[1]",)
    assert [event.primitive for event in report.benign] == ["log"]


def test_fault_that_masks_stand_before_is_found_at_its_own_line(find, xs):
    @jax.jit
    def f(x):
        scores = jax.nn.softmax(jnp.where(KEPT, x, -jnp.inf))
        return -jnp.log(scores).sum()  # <-- origin

    assert find(f, xs).origin.index == (1,)


@pytest.mark.parametrize("arguments", [(), (jnp.zeros((0, 3)),), (jnp.arange(3),), (jax.random.key(0),)])
def test_steps_without_floating_elements_are_silent(arguments):
    assert nd.locate(jax.jit(lambda *a: (a, jnp.arange(2))), *arguments) is None
