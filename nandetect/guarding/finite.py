"""A late look at many arrays at once: which of them hold an inf or a NaN."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect import nonfinite

FINITE, INF, NAN = 0, 1, 2
# Small arrays of one shape that an accelerator looks at in one go, be there so many or fewer: the program is compiled once for each shape.
_TOGETHER = 32
# Bytes that an accelerator hands over in less time than it takes to compile anything.
_READ = 2**20


def can_be_bad(leaf: Any) -> bool:
    """Whether a leaf can be looked at: a floating or complex array of values that are still there."""
    return nonfinite.is_inexact(leaf) and not isinstance(leaf, Tracer) and not (isinstance(leaf, jax.Array) and leaf.is_deleted())


def states(leaves: Sequence[Any]) -> list[int]:
    """`FINITE`, `INF` or `NAN` for each array, read where it lies: in the host's memory by numpy, elsewhere by a compiled reduction.

    Waits for the arrays. Of an array that is spread over processes, this process's own shards are looked at. The reduction is compiled for
    these arrays together: for ones that are looked at again and again, such as all that a step returns.
    """
    found = [FINITE] * len(leaves)
    away: dict[Hashable, list[tuple[int, Any]]] = defaultdict(list)
    looks = []
    for at, part in ((at, part) for at, leaf in enumerate(leaves) for part in _parts(leaf)):
        if _is_on_host(part):
            looks.append((at, _state(part)))
        else:
            away[_devices(part)].append((at, part))
    dispatched = [([at for at, _ in some], _each([part for _, part in some])) for some in away.values()]
    for places, result in dispatched:
        looks += zip(places, np.asarray(result).tolist(), strict=True)
    for at, state in looks:
        found[at] = max(found[at], state)
    return found


def state(value: Any) -> int:
    """The same for one array that is looked at once. A program is compiled only where reading the array would take as long."""
    parts = _parts(value)
    return max((_state(part) if _is_on_host(part) or part.nbytes <= _READ else states([part])[0] for part in parts), default=FINITE)


def all_finite(leaves: Iterable[Any]) -> bool:
    """Whether many small arrays of few shapes, however many there are, hold neither an inf nor a NaN. Waits for them."""
    here, away = [], []
    for some in _alike(part for leaf in leaves for part in _parts(leaf)):
        (here if _is_on_host(some[0]) else away).append(some)
    if not all(nonfinite.is_clean(part) for some in here for part in some):
        return False
    looks = []
    for some in away:
        sound: Any = np.True_
        for begin in range(0, len(some), _TOGETHER):
            few = some[begin : begin + _TOGETHER]
            sound = _all(sound, few + few[-1:] * (_TOGETHER - len(few)))
        looks.append(sound)
    return all(bool(np.asarray(look)) for look in looks)


def _alike(leaves: Iterable[Any]) -> list[list[Any]]:
    """Arrays by their shapes, types and places. What one program has made shares them, so that few have to be compared."""
    groups: dict[Hashable, list[Any]] = defaultdict(list)
    known: dict[tuple[int, int], tuple[list[Any], Any, Any]] = {}
    for leaf in leaves:
        if not isinstance(leaf, jax.Array):
            groups[None].append(leaf)
            continue
        aval, sharding = leaf.aval, leaf.sharding
        found = known.get((id(aval), id(sharding)))
        if found is None:
            # Held, so that the ids stay theirs.
            found = known[id(aval), id(sharding)] = groups[leaf.shape, leaf.dtype, sharding], aval, sharding
        found[0].append(leaf)
    return list(groups.values())


def _parts(leaf: Any) -> list[Any]:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return [leaf]
    return [shard.data for shard in leaf.addressable_shards]


def _is_on_host(leaf: Any) -> bool:
    """Whether the host reads it without an accelerator; what a program keeps in the host's memory to have room, it does."""
    if not isinstance(leaf, jax.Array):
        return True
    return next(iter(leaf.devices())).platform == "cpu" or str(leaf.sharding.memory_kind).endswith("host")


def _devices(part: jax.Array) -> Hashable:
    """What arrays have in common that one program can read together."""
    return part.sharding.mesh if isinstance(part.sharding, jax.sharding.NamedSharding) else part.sharding


def _state(array: Any) -> int:
    array = nonfinite.host(array)
    if np.isfinite(array).all():
        return FINITE
    return NAN if np.isnan(array).any() else INF


@jax.jit
def _each(leaves: list[Any]) -> Any:
    return jnp.array([jnp.where(jnp.any(jnp.isnan(x)), NAN, jnp.where(jnp.all(jnp.isfinite(x)), FINITE, INF)) for x in leaves], jnp.int8)


@jax.jit
def _all(sound: Any, leaves: list[Any]) -> Any:
    return sound & jnp.all(jnp.isfinite(jnp.stack(leaves)))
