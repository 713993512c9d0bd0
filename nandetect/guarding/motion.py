"""Whether a step goes anywhere: which calls left their state as it was, and whether any ever changed it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from nandetect import nonfinite
from nandetect.annotations import Array
from nandetect.guarding import finite
from nandetect.guarding.links import Links
from nandetect.guarding.recorder import Habits

# Bytes of the state that are compared from look to look, until they are seen to change.
_COMPARED = 2**20


class Motion:
    """A step's state from look to look, told by the bytes of its smaller arrays, until it has been seen to change once."""

    def __init__(self) -> None:
        self._before: int | None = None

    def look(self, made: Sequence[object], habits: Habits) -> None:
        """Look at what the last call made; enters in `habits` that its state has changed."""
        if habits.changes_state or habits.links is None or max(habits.links.outs, default=-1) >= len(made):
            return
        arrays = _arrays(habits.links.of_out(made))
        before, self._before = self._before, _digest(arrays) if arrays else None
        habits.changes_state = bool(arrays) and before is not None and before != self._before


def stands_still(links: Links, given: Sequence[object], made: Sequence[object]) -> bool:
    """Whether a call left the arrays of its state as they were."""
    olds = links.of_in(given)
    arrays = _arrays(olds)
    pairs = [(old, new) for old, new in zip(olds, links.of_out(made), strict=True) if any(old is array for array in arrays)]
    return bool(pairs) and all(_equal(old, new) for old, new in pairs)


def changed_nothing(links: Links, given: Sequence[object], made: Sequence[object]) -> bool:
    """Whether a call left all of its state as it was: no counter, no loss scale and no random key says that it happened."""
    return all(_equal(old, new) for old, new in zip(links.of_in(given), links.of_out(made), strict=True))


def _arrays(state: Sequence[object]) -> list[Array]:
    """The floating arrays of a state; its single numbers, where it has no others."""
    inexact = [leaf for leaf in state if finite.can_be_bad(leaf)]
    return [leaf for leaf in inexact if leaf.size > 1] or inexact


def _equal(old: object, new: object) -> bool:
    if old is new:
        return True
    try:
        return np.array_equal(nonfinite.host(old), nonfinite.host(new))
    # A random key, an array that is gone or is spread over processes: none of them says that nothing has changed.
    except (TypeError, RuntimeError, ValueError):
        return False


def _digest(arrays: list[Array]) -> int:
    """A number that tells these arrays from others; the smallest of them stand for all."""
    left, digest = _COMPARED, 0
    for array in sorted(arrays, key=lambda array: array.nbytes):
        left -= array.nbytes
        if left < 0 and digest:
            break
        if getattr(array, "is_fully_addressable", True):
            digest = zlib.adler32(np.asarray(array).tobytes(), digest or 1)
    return digest
