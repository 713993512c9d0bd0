"""A late look at many arrays at once: which of them hold an inf or a NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect import measure

FINITE, INF, NAN = 0, 1, 2


def can_be_bad(leaf: Any) -> bool:
    """Whether a leaf can be looked at: a floating or complex array of values that are still there."""
    return measure.is_inexact(leaf) and not isinstance(leaf, Tracer) and not (isinstance(leaf, jax.Array) and leaf.is_deleted())


def states(leaves: Sequence[Any]) -> list[int]:
    """`FINITE`, `INF` or `NAN` for each array, read where it lies: in the host's memory by numpy, elsewhere by one compiled reduction.

    Waits for the arrays. Of an array that is spread over processes, this process's own shards are looked at.
    """
    parts = [(at, part) for at, leaf in enumerate(leaves) for part in _parts(leaf)]
    found = [FINITE] * len(leaves)
    away = [(at, part) for at, part in parts if not _is_on_host(part)]
    looks = [(at, _state(part)) for at, part in parts if _is_on_host(part)]
    if away:
        looks += zip([at for at, _ in away], np.asarray(_compiled([part for _, part in away])).tolist(), strict=True)
    for at, state in looks:
        found[at] = max(found[at], state)
    return found


def _parts(leaf: Any) -> list[Any]:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return [leaf]
    return [shard.data for shard in leaf.addressable_shards]


def _is_on_host(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or next(iter(leaf.devices())).platform == "cpu"


def _state(array: Any) -> int:
    array = measure.host(array)
    if np.isfinite(array).all():
        return FINITE
    return NAN if np.isnan(array).any() else INF


@jax.jit
def _compiled(leaves: list[Any]) -> Any:
    return jnp.array([jnp.where(jnp.any(jnp.isnan(x)), NAN, jnp.where(jnp.all(jnp.isfinite(x)), FINITE, INF)) for x in leaves], jnp.int8)
