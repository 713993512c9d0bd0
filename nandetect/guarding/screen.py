"""Whether what calls made is finite: a first look, cheap enough to take all the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nandetect import nonfinite
from nandetect.guarding import finite
from nandetect.guarding.recorder import flatten

# A result's place among the leaves and its state: one that was looked into and is no fault (a best loss that starts at inf) is not again.
Accepted = set[tuple[int, int]]


def top(out: Any, is_whole: bool) -> tuple[Any, ...]:
    """The parts of a result as they are handed back: the elements of a tuple, or the one thing that it is, or is handed on as."""
    return (out,) if is_whole or not isinstance(out, tuple) else out


def bad_places(made: Sequence[Any]) -> Accepted:
    """The places and states of the leaves that are not finite."""
    seen = [(at, leaf) for at, leaf in enumerate(made) if finite.can_be_bad(leaf)]
    return {(at, state) for (at, _), state in zip(seen, finite.states([leaf for _, leaf in seen]), strict=True) if state}


def bad_metrics(small: Sequence[Sequence[Any]]) -> bool:
    """Whether a small result of any of some calls is not finite. They are read all together."""
    width = max(map(len, small), default=0)
    return any(not _is_finite([one[at] for one in small if at < len(one)]) for at in range(width))


def _is_finite(column: list[Any]) -> bool:
    leaves = column if isinstance(column[0], jax.Array) else flatten(column)[0]
    joined = _joined(leaves)
    if joined is not None:
        return nonfinite.is_clean(joined)
    return finite.all_finite(leaf for leaf in leaves if finite.can_be_bad(leaf))


def _joined(leaves: list[Any]) -> np.ndarray | None:
    """All elements of arrays of one type in the host's memory. None where that is not what they are, or where one is gone."""
    try:
        (dtype,) = {leaf.dtype for leaf in leaves}
        return np.frombuffer(b"".join(leaves), dtype)
    # Types that have no buffer or are not all one, an accelerator's memory, or a metric that is gone.
    except (BufferError, TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return None
