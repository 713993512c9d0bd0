"""optax transformations that pass updates on as they are and keep in their state how healthy they were.

optax itself is not imported: it takes any pair of `init` and `update`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect.annotations import Pytree
from nandetect.errors import UsageError
from nandetect.health import Health
from nandetect.monitor import in_step, layout
from nandetect.monitor.in_step import LeafArrays, Vitals
from nandetect.monitor.vitals import LAYERS, MISSING, WHOLE, is_full

if TYPE_CHECKING:
    import optax


class UpdatesHealth(NamedTuple):
    """The health of an optimizer's updates: `health` of the last ones, and in int32 the number of `steps` and of those not finite.

    `first_nonfinite` is the number of the first such step, counted from 0, or -1; `consecutive_nonfinite` counts those in a row up to now.
    """

    health: Health
    steps: jax.Array
    first_nonfinite: jax.Array
    total_nonfinite: jax.Array
    consecutive_nonfinite: jax.Array

    def __str__(self) -> str:
        if isinstance(self.steps, Tracer | jax.ShapeDtypeStruct) or np.ndim(self.steps):
            return repr(self)
        steps, first, total, consecutive = (int(np.asarray(count)) for count in self[1:])
        if not total:
            return f"finite in {steps} steps; last: {self.health}"
        return f"not finite in {total} of {steps} steps, first in step {first}, last {consecutive} in a row; last: {self.health}"


class _Pair(NamedTuple):
    init: Callable[..., Pytree]
    update: Callable[..., tuple[Pytree, Pytree]]


def watch_updates() -> optax.GradientTransformationExtraArgs:
    """A transformation for `optax.chain` that returns the updates it is given, and whose state is an `UpdatesHealth`.

    It sees the results of the transformation before it in the chain: the gradients where it is the first, what is added to the parameters
    where it is the last. Chain it before `optax.apply_if_finite` and not inside, where its state would forget the skipped steps.
    """
    return cast("optax.GradientTransformationExtraArgs", _Pair(_init, _update))


def read(opt_state: Pytree) -> UpdatesHealth:
    """The `UpdatesHealth` in the state of an optimizer, at any depth. Raises `UsageError` where it holds none, or more than one."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, UpdatesHealth))
    states = [node for node in nodes if isinstance(node, UpdatesHealth)]
    if len(states) != 1:
        raise UsageError(f"the optimizer state holds {len(states)} states of `watch_updates`; give `read` a part of it that holds one")
    return states[0]


class Watched(NamedTuple):
    """The state of a watched optimizer: `inner` is the optimizer's own state, `vitals` are those of its last step."""

    inner: Pytree
    vitals: Vitals


def watch(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, whose state also holds the vitals of its last step, for `nd.Monitor().observe(opt_state=...)`.

    They are measured in the update itself, inside `jit` and `scan` alike and without a callback: of the gradients that `update` is given,
    of the parameters where it is given them, and of the updates that it returns. `vitals.is_full` says of which steps all is measured.
    A `scan` that returns `vitals(opt_state)` stacks them, and `observe` takes them stacked.
    """

    def init(params: Pytree) -> Watched:
        leaves = layout.of(params)
        nothing = jnp.full(len(WHOLE) + len(LAYERS) * len(leaves), MISSING, jnp.float32)
        return Watched(optimizer.init(params), Vitals(nothing, jnp.array(-1, jnp.int32), leaves))

    def update(updates: Pytree, state: Watched, params: Pytree = None, **extra_args: Pytree) -> tuple[Pytree, Watched]:
        new, inner = optimizer.update(updates, state.inner, params, **extra_args)
        step, leaves = _next(state.vitals.step), state.vitals.leaves
        columns = (layout.column(leaves, tree) for tree in (updates, params, new))
        arrays = [LeafArrays(grad=grad, param=param, update=added) for grad, param, added in zip(*columns, strict=True)]
        return new, Watched(inner, Vitals(in_step.sometimes(arrays, is_full(step)), step, leaves))

    return cast("optax.GradientTransformationExtraArgs", _Pair(init, update))


def vitals(opt_state: Pytree) -> Vitals:
    """The vitals in the state of an optimizer, at any depth. Raises `UsageError` where it holds none, or more than one."""
    return in_step.of_state(opt_state)


def _init(params: Pytree) -> UpdatesHealth:
    del params
    # One array for each count: a step that donates the state cannot donate one array twice.
    return UpdatesHealth(Health.of(None), *(jnp.array(count, jnp.int32) for count in (0, -1, 0, 0)))


def _update(updates: Pytree, state: UpdatesHealth, params: Pytree = None, **extra_args: Pytree) -> tuple[Pytree, UpdatesHealth]:
    del params, extra_args
    health = Health.of(updates)
    bad = ~health.finite
    return updates, UpdatesHealth(
        health,
        steps=_next(state.steps),
        first_nonfinite=jnp.where(bad & (state.first_nonfinite < 0), state.steps, state.first_nonfinite),
        total_nonfinite=jnp.where(bad, _next(state.total_nonfinite), state.total_nonfinite),
        consecutive_nonfinite=jnp.where(bad, _next(state.consecutive_nonfinite), 0),
    )


def _next(count: jax.Array) -> jax.Array:
    """One more, or the largest int32."""
    return jnp.where(count < jnp.iinfo(jnp.int32).max, count + 1, count)
