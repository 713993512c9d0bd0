"""Small runs on the embedded digits under `nd.Monitor`: what is wrong with each is named, by one finding, and nothing of a healthy one."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect import data

_BATCH = 32


def findings(
    hidden=(64, 32),
    act=jax.nn.relu,
    gain=2.0,
    bias=0.0,
    inputs="standard",
    rate=0.1,
    steps=250,
    shuffled=False,
    detach=None,
    still=None,
    grown=None,
):
    """Errors and warnings on an MLP trained with gradient descent; in the steps `grown` the gradient is 3 times as large."""
    digits = data.scaled(data.load("digits"), inputs).train
    rng = np.random.default_rng(0)
    x = jnp.asarray(digits.inputs, jnp.float32)
    y = jnp.asarray(rng.permutation(digits.labels) if shuffled else digits.labels)
    sizes = (x.shape[1], *hidden, 10)
    layers = range(len(sizes) - 1)
    params = [
        {
            "w": jnp.asarray(rng.normal(size=(sizes[i], sizes[i + 1])) * math.sqrt(gain / sizes[i]), jnp.float32),
            "b": jnp.full(sizes[i + 1], bias if i < layers[-1] else 0.0, jnp.float32),
        }
        for i in layers
    ]

    def loss(params, rows):
        h = x[rows]
        for i in layers:
            h = jax.lax.stop_gradient(h) if i == detach else h
            h = h @ params[i]["w"] + params[i]["b"]
            h = act(h) if i < layers[-1] else h
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(h), y[rows][:, None], 1))

    @jax.jit
    def step(params, rows, factor):
        value, grads = jax.value_and_grad(loss)(params, rows)
        grads = jax.tree.map(lambda g: factor * g, grads)
        updates = [jax.tree.map(lambda g, i=i: 0 * g if i == still else -rate * g, grads[i]) for i in layers]
        return jax.tree.map(jnp.add, params, updates), value, grads, updates

    monitor = nd.Monitor()
    for at in range(steps):
        rows = rng.integers(0, len(x), _BATCH)
        after, value, grads, updates = step(params, rows, 3.0 if grown and at in grown else 1.0)
        monitor.observe(params=params, grads=grads, updates=updates, loss=value)
        params = after
    return [finding for finding in monitor.findings() if finding.severity != "note"]


def test_a_healthy_run_has_no_finding():
    assert findings() == []


@pytest.mark.parametrize(
    ("rule", "cause", "run"),
    [
        ("learning-rate-high", "a learning rate too high", {"rate": 20.0}),
        ("learning-rate-low", "a learning rate too low", {"rate": 1e-5}),
        ("inputs-unscaled", "inputs that were never scaled", {"inputs": "raw"}),
        ("vanishing-gradient", "a gradient that shrinks from layer to layer", {"hidden": (32,) * 7, "act": jax.nn.sigmoid, "gain": 1.0}),
        ("dead-units", "dead from the start: its bias is about 9 in size", {"bias": -9.0}),
        ("frozen-parameters", "its gradient is exactly 0: detached from the loss", {"detach": 1}),
        ("frozen-parameters", "its gradient arrives and its update is exactly 0", {"still": 1}),
        ("init-symmetry", "weights that all start at zero", {"gain": 0.0}),
        ("init-scale", "initial weights too large", {"gain": 200.0, "rate": 1e-4}),
        ("loss-at-chance", "labels that have nothing to do with the inputs", {"shuffled": True, "rate": 0.03}),
    ],
)
def test_a_fault_is_named_by_its_cause_and_once(rule, cause, run):
    found = findings(**run)
    assert [finding.rule for finding in found] == [rule]
    assert found[0].cause.startswith(cause)
