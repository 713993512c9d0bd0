"""The cheap first look at what calls returned: is any of it not finite? Everything else is asked only where something is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nandetect import nonfinite
from nandetect.guarding import finite
from nandetect.guarding.recorder import flatten

# Leaves of a result that are not finite: the index of each, and whether it holds an inf or a NaN (`finite.INF`, `finite.NAN`).
BadLeaves = set[tuple[int, int]]


def top(out: object, is_whole: bool) -> tuple[object, ...]:
    """The parts of a result as the next call is given them: the elements of a tuple, or the result itself, also a tuple that `is_whole`."""
    return (out,) if is_whole or not isinstance(out, tuple) else out


def bad_leaves(made: Sequence[object]) -> BadLeaves:
    """Those of a result's leaves that are not finite."""
    inexact = [(index, leaf) for index, leaf in enumerate(made) if finite.can_be_bad(leaf)]
    states = finite.states([leaf for _, leaf in inexact])
    return {(index, state) for (index, _), state in zip(inexact, states, strict=True) if state}


def bad_metrics(small: Sequence[Sequence[object]]) -> bool:
    """Whether any of the metrics of some calls is not finite. The same metric of all calls is read together."""
    width = max(map(len, small), default=0)
    return any(not _is_finite([metrics[index] for metrics in small if index < len(metrics)]) for index in range(width))


def _is_finite(column: list[object]) -> bool:
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
