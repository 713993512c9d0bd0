"""Steps that break for some batches, and loops that call them, for the tests of `guard`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd


def rows(count, size=4):
    """Batches of random numbers, the same every time."""
    return list(np.random.default_rng(0).normal(size=(count, 8, size)).astype(np.float32))


def params(size=4):
    return {"w": jnp.asarray(np.full((size, 3), 0.5, np.float32)), "b": jnp.zeros(3)}


def root_step(params, momentum, x):
    """Its gradient is inf times 0 for a batch of zeros; its loss is finite."""

    def loss(params):
        return jnp.mean(jnp.sqrt(jnp.sum((x @ params["w"]) ** 2, axis=1))) + jnp.sum(params["b"] ** 2)

    value, grads = jax.value_and_grad(loss)(params)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
    return jax.tree.map(lambda p, m: p - 0.01 * m, params, momentum), momentum, value


def second_moment_step(params, moment, x):
    """The optimizer's own state overflows for a batch of huge numbers, whose gradient is finite."""
    grads = jax.grad(lambda params: jnp.mean(x @ params["w"]) + jnp.sum(params["b"]))(params)
    moment = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * g * g, moment, grads)
    return jax.tree.map(lambda p, g, v: p - 0.01 * g / (jnp.sqrt(v) + 1e-8), params, grads, moment), moment, jnp.mean(x @ params["w"]) * 0


def train(step, batches, state=None):
    state = state or (params(), jax.tree.map(jnp.zeros_like, params()))
    for x in batches:
        *state, _ = step(*state, x)
    return state


def failing(step, batches, **options) -> nd.Report:
    guarded = nd.guard(step, **options)
    with pytest.raises(nd.NonFiniteError) as caught:
        train(guarded, batches)
        guarded.flush()
    return caught.value.report
