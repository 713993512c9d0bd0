"""Observing from inside a program that is being traced: what is measured goes to the host by a callback."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from nandetect.annotations import Array
from nandetect.errors import UsageError
from nandetect.history import Leaf
from nandetect.monitor.in_step import LeafArrays, Metric, full, sometimes, with_metrics
from nandetect.monitor.reading import Row
from nandetect.monitor.vitals import LAYERS, MISSING, WHOLE


def measured(leaves: Sequence[LeafArrays], is_full: Array | np.bool_ | bool | None) -> jax.Array:
    """The vitals: everything, or what `is_full` says, which may be known only to the running program."""
    if is_full is None:
        return full(leaves)
    return sometimes(leaves, jnp.asarray(is_full))


def send(
    arrived: Callable[[Row], None], leaves: tuple[Leaf, ...], metrics: Mapping[str, Metric], numbers: jax.Array, step: Metric | None
) -> None:
    """Trace a call of `arrived` with the row. Raises `UsageError` inside `shard_map`."""
    axes = jax.sharding.get_abstract_mesh().manual_axes
    if axes:
        named = ", ".join(map(str, axes))
        raise UsageError(f"inside shard_map over {named} each device sees its own part: observe what the shard_map returns, outside of it")
    names = tuple(metrics)
    row = _one_of_batch(len(names), len(leaves))(with_metrics(list(metrics.values()), numbers))
    step = None if step is None else _first_of_batch(jnp.asarray(step))

    def call(numbers: Array, step: Array | None) -> None:
        # Copies, since the arrays that a callback is given live only as long as the call.
        arrived(Row(None if step is None else np.array(step), leaves, names, np.array(numbers)))

    jax.debug.callback(call, row, step)


@functools.cache
def _one_of_batch(metrics: int, leaves: int) -> Callable[[jax.Array], jax.Array]:
    """The row itself; of a batch of them under `vmap` one row that stands for all."""

    @custom_vmap
    def row(numbers: jax.Array) -> jax.Array:
        return numbers

    @row.def_vmap
    def _(size: int, batched: Sequence[bool], numbers: jax.Array) -> tuple[jax.Array, bool]:
        del size
        return row(_combined(numbers, metrics, leaves) if batched[0] else numbers), False

    return row


def _combined(rows: jax.Array, metrics: int, leaves: int) -> jax.Array:
    """float32[B, ..., W] -> float32[..., W]: the mean of what was measured, of maxima the largest, of counts the sum."""
    known = rows != MISSING
    is_measured = jnp.any(known, axis=0)
    total = jnp.sum(rows, axis=0, where=known)
    mean = total / jnp.maximum(jnp.sum(known, axis=0), 1)
    names = np.array([""] * (metrics + len(WHOLE)) + [name for name in LAYERS for _ in range(leaves)])
    largest, counted = np.char.endswith(names, "_max"), np.char.endswith(names, "_nonfinite")
    combined = jnp.where(largest, jnp.max(rows, axis=0), jnp.where(counted, total, mean))
    return jnp.where(is_measured, combined, MISSING)


@custom_vmap
def _first_of_batch(step: jax.Array) -> jax.Array:
    return step


@_first_of_batch.def_vmap
def _(size: int, batched: Sequence[bool], step: jax.Array) -> tuple[jax.Array, bool]:
    del size
    return _first_of_batch(step[0] if batched[0] else step), False
