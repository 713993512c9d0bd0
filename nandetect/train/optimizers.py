"""Three optimizers in plain JAX, each a pair of functions `init` and `update` as in optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nandetect.annotations import Pytree


class Optimizer(NamedTuple):
    """`init(params)` gives the state; `update(params, state, grads)` the new parameters and the new state."""

    init: Callable[[Pytree], Pytree]
    update: Callable[[Pytree, Pytree, Pytree], tuple[Pytree, Pytree]]


class Adam(NamedTuple):
    """The decayed means of the gradient and of its square, and the number of steps behind them."""

    mean: Pytree
    square: Pytree
    steps: jax.Array


def sgd(lr: float) -> Optimizer:
    """Gradient descent."""
    return Optimizer(lambda params: (), lambda params, state, grads: (_descend(params, grads, lr), state))


def momentum(lr: float, decay: float = 0.9) -> Optimizer:
    """Gradient descent with a velocity."""

    def update(params: Pytree, velocity: Pytree, grads: Pytree) -> tuple[Pytree, Pytree]:
        velocity = jax.tree.map(lambda v, g: decay * v + g, velocity, grads)
        return _descend(params, velocity, lr), velocity

    return Optimizer(_zeros, update)


def adam(lr: float, decay: float = 0.9, decay_square: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam (Kingma and Ba, 2015)."""

    def init(params: Pytree) -> Adam:
        return Adam(_zeros(params), _zeros(params), jnp.zeros((), jnp.int32))

    def update(params: Pytree, state: Adam, grads: Pytree) -> tuple[Pytree, Adam]:
        steps = state.steps + 1
        mean = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, state.mean, grads)
        square = jax.tree.map(lambda v, g: decay_square * v + (1 - decay_square) * g * g, state.square, grads)
        # Bias corrections are in float32 whatever the parameters are: 1 - 0.999 is 0 in bfloat16.
        unbiased, unbiased_square = (1 - jnp.float32(beta) ** steps for beta in (decay, decay_square))
        step = jax.tree.map(
            lambda m, v: (m / unbiased.astype(m.dtype)) / (jnp.sqrt(v / unbiased_square.astype(v.dtype)) + eps),
            mean,
            square,
        )
        return _descend(params, step, lr), Adam(mean, square, steps)

    return Optimizer(init, update)


OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {"sgd": sgd, "momentum": momentum, "adam": adam}


def _zeros(params: Pytree) -> Pytree:
    return jax.tree.map(jnp.zeros_like, params)


def _descend(params: Pytree, direction: Pytree, lr: float) -> Pytree:
    return jax.tree.map(lambda p, d: p - lr * d, params, direction)
