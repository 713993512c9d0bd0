"""A 6-layer transformer's training step in plain JAX (value_and_grad, then Adam), and two ways in which it really fails.

`forward_failure`: the loss takes `log(softmax(logits))`; an unembedding drawn too large makes the softmax underflow to 0.
`backward_failure`: tokens are divided by their norm, and an all-zero padding row gives a finite loss and a NaN gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LAYERS, HEADS, WIDTH, VOCABULARY, BATCH, LENGTH = 6, 4, 64, 96, 4, 32
PADDING = 0


class Failure(NamedTuple):
    """A step, arguments on which it is sound, arguments on which it fails, and what is to be blamed."""

    step: Callable[..., Any]
    healthy: tuple[Any, ...]
    broken: tuple[Any, ...]
    primitive: str
    phase: str


def init(key: jax.Array) -> dict[str, Any]:
    keys = iter(jax.random.split(key, 2 + 6 * LAYERS))
    return {
        "embed": dense(next(keys), VOCABULARY, WIDTH) * math.sqrt(VOCABULARY),
        "layers": [init_layer(keys) for _ in range(LAYERS)],
        "unembed": dense(next(keys), WIDTH, VOCABULARY),
    }


def init_layer(keys: Iterator[jax.Array]) -> dict[str, jax.Array]:
    return {
        "norm": jnp.ones(WIDTH),
        "query": dense(next(keys), WIDTH, WIDTH),
        "key": dense(next(keys), WIDTH, WIDTH),
        "value": dense(next(keys), WIDTH, WIDTH),
        "out": dense(next(keys), WIDTH, WIDTH),
        "up": dense(next(keys), WIDTH, 4 * WIDTH),
        "down": dense(next(keys), 4 * WIDTH, WIDTH),
    }


def dense(key: jax.Array, m: int, n: int) -> jax.Array:
    return jax.random.normal(key, (m, n)) / math.sqrt(m)


def layer_norm(scale: jax.Array, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    return scale * centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)


def attention(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    query, key, value = ((x @ layer[name]).reshape(*x.shape[:2], HEADS, WIDTH // HEADS) for name in ("query", "key", "value"))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(WIDTH // HEADS)
    causal = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return mixed.reshape(*x.shape[:2], WIDTH) @ layer["out"]


def block(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    x = x + attention(layer, layer_norm(layer["norm"], x))
    hidden = jax.nn.gelu(x @ layer["up"])
    return x + hidden @ layer["down"]


def logits(params: dict[str, Any], x: jax.Array) -> jax.Array:
    for layer in params["layers"]:
        x = block(layer, x)
    return layer_norm(jnp.ones(WIDTH), x) @ params["unembed"]


def naive_loss(params: dict[str, Any], tokens: jax.Array, targets: jax.Array) -> jax.Array:
    probs = jax.nn.softmax(logits(params, params["embed"][tokens]))
    return -jnp.mean(jnp.sum(jax.nn.one_hot(targets, VOCABULARY) * jnp.log(probs), -1))


def unit_norm_loss(params: dict[str, Any], tokens: jax.Array, targets: jax.Array) -> jax.Array:
    x = params["embed"][tokens]
    x = x / (jnp.sqrt(jnp.sum(x**2, -1, keepdims=True)) + 1e-6)
    scores = jax.nn.log_softmax(logits(params, x))
    return -jnp.mean(jnp.sum(jax.nn.one_hot(targets, VOCABULARY) * scores, -1))


def adam(params: Any, grads: Any, first: Any, second: Any, count: jax.Array, rate: float = 1e-3) -> tuple[Any, Any, Any]:
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
    corrected = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    params = jax.tree.map(lambda p, m, v: p - corrected * m / (jnp.sqrt(v) + 1e-8), params, first, second)
    return params, first, second


def training_step(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    def step(params: Any, first: Any, second: Any, count: jax.Array, tokens: jax.Array, targets: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, tokens, targets)
        params, first, second = adam(params, grads, first, second, count)
        return value, params, first, second

    return jax.jit(step)


def arguments(params: dict[str, Any], tokens: jax.Array) -> tuple[Any, ...]:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return params, zeros, zeros, jnp.float32(1.0), tokens, jnp.roll(tokens, -1, axis=1)


def forward_failure() -> Failure:
    params, tokens = init(jax.random.key(0)), jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 1, VOCABULARY)
    too_large = {**params, "unembed": params["unembed"] * 64}
    return Failure(training_step(naive_loss), arguments(params, tokens), arguments(too_large, tokens), "log", "forward")


def backward_failure() -> Failure:
    params, tokens = init(jax.random.key(0)), jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 1, VOCABULARY)
    zero_padding = {**params, "embed": params["embed"].at[PADDING].set(0.0)}
    padded = tokens.at[:, LENGTH - 4 :].set(PADDING)
    return Failure(training_step(unit_norm_loss), arguments(params, tokens), arguments(zero_padding, padded), "div", "backward")


FAILURES = {"forward": forward_failure, "backward": backward_failure}


def equations(jaxpr: Any) -> int:
    """How many equations a call runs through, sub-programs included once for each place that enters them."""
    count = 0
    for equation in jaxpr.eqns:
        inner = [p for p in jax.tree.leaves(dict(equation.params), is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr"))]
        bodies = [getattr(p, "jaxpr", p) for p in inner if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
        count += sum(equations(body) for body in bodies) or 1
    return count
