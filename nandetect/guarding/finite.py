"""Which of many arrays hold an inf or a NaN, told some time after they were made and with as few programs and transfers as possible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect import nonfinite
from nandetect.annotations import Array

FINITE, INF, NAN = 0, 1, 2
# Small arrays of one shape that an accelerator looks at in one go, be there so many or fewer: the program is compiled once for each shape.
_TOGETHER = 32
# Bytes that an accelerator hands over in less time than it takes to compile anything.
_READ = 2**20


def can_be_bad(leaf: object) -> TypeGuard[Array]:
    """Whether a leaf can be looked at: a floating or complex array of values that are still there."""
    return nonfinite.is_inexact(leaf) and not isinstance(leaf, Tracer) and not (isinstance(leaf, jax.Array) and leaf.is_deleted())


def states(leaves: Sequence[Array]) -> list[int]:
    """`FINITE`, `INF` or `NAN` for each array, read where it lies: in the host's memory by numpy, elsewhere by a compiled reduction.

    Waits for the arrays. Of an array that is spread over processes, this process's own shards are looked at. The reduction is compiled for
    these arrays together: for ones that are looked at again and again, such as all that a step returns.
    """
    worst = [FINITE] * len(leaves)
    away: dict[Hashable, list[tuple[int, jax.Array]]] = defaultdict(list)
    looks: list[tuple[int, int]] = []
    for index, part in ((index, part) for index, leaf in enumerate(leaves) for part in _parts(leaf)):
        if not isinstance(part, jax.Array) or _is_on_host(part):
            looks.append((index, _state(part)))
        else:
            away[_devices(part)].append((index, part))
    dispatched = [([index for index, _ in group], _each([part for _, part in group])) for group in away.values()]
    for indices, result in dispatched:
        looks += zip(indices, np.asarray(result).tolist(), strict=True)
    for index, state in looks:
        worst[index] = max(worst[index], state)
    return worst


def state(value: Array) -> int:
    """The same for one array that is looked at once. A program is compiled only where reading the array would take as long."""
    parts = _parts(value)
    return max((_state(part) if _is_on_host(part) or part.nbytes <= _READ else states([part])[0] for part in parts), default=FINITE)


def all_finite(leaves: Iterable[Array]) -> bool:
    """Whether many small arrays of few shapes, however many there are, hold neither an inf nor a NaN. Waits for them."""
    here: list[list[Array]] = []
    away: list[list[Array]] = []
    for group in _alike(part for leaf in leaves for part in _parts(leaf)):
        (here if _is_on_host(group[0]) else away).append(group)
    if not all(nonfinite.is_clean(part) for group in here for part in group):
        return False
    looks: list[Array | np.bool_] = []
    for group in away:
        sound = np.True_
        for begin in range(0, len(group), _TOGETHER):
            batch = group[begin : begin + _TOGETHER]
            sound = _all(sound, batch + batch[-1:] * (_TOGETHER - len(batch)))
        looks.append(sound)
    return all(bool(np.asarray(look)) for look in looks)


def _alike(leaves: Iterable[Array]) -> list[list[Array]]:
    """Arrays by their shapes, types and places. What one program has made shares them, so that few have to be compared."""
    groups: dict[Hashable, list[Array]] = defaultdict(list)
    # By the ids of shape and place, the group of those; both are held here, so that the ids stay theirs.
    known: dict[tuple[int, int], tuple[list[Array], object, object]] = {}
    for leaf in leaves:
        if not isinstance(leaf, jax.Array):
            groups[None].append(leaf)
            continue
        aval, sharding = leaf.aval, leaf.sharding
        entry = known.get((id(aval), id(sharding)))
        if entry is None:
            entry = known[id(aval), id(sharding)] = groups[leaf.shape, leaf.dtype, sharding], aval, sharding
        entry[0].append(leaf)
    return list(groups.values())


def _parts(leaf: Array) -> list[Array]:
    """The array itself, or this process's own shards of one that is spread over processes."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return [leaf]
    return [shard.data for shard in leaf.addressable_shards]


def _is_on_host(leaf: Array) -> bool:
    """Whether the host can read it without an accelerator, as it can what a program keeps in the host's memory to have room."""
    if not isinstance(leaf, jax.Array):
        return True
    return next(iter(leaf.devices())).platform == "cpu" or str(leaf.sharding.memory_kind).endswith("host")


def _devices(part: jax.Array) -> Hashable:
    """What arrays have in common that one program can read together."""
    return part.sharding.mesh if isinstance(part.sharding, jax.sharding.NamedSharding) else part.sharding


def _state(array: Array) -> int:
    values = nonfinite.host(array)
    if np.isfinite(values).all():
        return FINITE
    return NAN if np.isnan(values).any() else INF


@jax.jit
def _each(leaves: list[jax.Array]) -> jax.Array:
    return jnp.array([jnp.where(jnp.any(jnp.isnan(x)), NAN, jnp.where(jnp.all(jnp.isfinite(x)), FINITE, INF)) for x in leaves], jnp.int8)


@jax.jit
def _all(sound: jax.Array | np.bool_, leaves: list[Array]) -> jax.Array:
    return sound & jnp.all(jnp.isfinite(jnp.stack(leaves)))
