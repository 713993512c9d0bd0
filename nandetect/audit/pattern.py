"""What of a kernel is not random: zeros, equal weights, units that repeat one another, orthogonal columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

# A kernel is orthogonal if the products of `_VECTORS` of its vectors are below `_ORTHOGONAL` times those in a kernel drawn at random.
_VECTORS = 64
_ORTHOGONAL = 0.1
# The largest kernel that is searched for units that repeat.
_LARGEST = 1 << 25
Axis: TypeAlias = Literal["output", "input"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """`constant` is the one value of all weights, if there is one. Of `units` along `axis`, `repeated` equal an earlier one (outputs are
    looked at first). `gain` is that of an orthogonal kernel. `sparse` says that most weights are exactly 0."""

    constant: float | None = None
    repeated: int = 0
    units: int = 0
    axis: Axis = "output"
    gain: float | None = None
    sparse: bool = False


def pattern(array: np.ndarray, outputs_first: bool = False) -> Pattern:
    """What is regular in a kernel of at least two axes; its outputs lie along the last, or with `outputs_first` along the first."""
    if array.size == 0:
        return Pattern()
    first = array.reshape(-1)[0]
    if bool((array == first).all()):
        return Pattern(constant=float(first))
    rows = np.moveaxis(array, 0, -1) if outputs_first else array
    matrix = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
    sparse = float((array == 0).mean()) > 0.5
    gain = None if sparse else _orthogonal_gain(matrix)
    if array.size > _LARGEST:
        return Pattern(gain=gain, sparse=sparse)
    both: tuple[tuple[Axis, np.ndarray], ...] = (("output", matrix.T), ("input", matrix))
    for axis, units in both:
        repeated, counted = _repeated(units)
        if repeated:
            return Pattern(repeated=repeated, units=counted, axis=axis, gain=gain, sparse=sparse)
    return Pattern(gain=gain, sparse=sparse)


def _repeated(units: np.ndarray) -> tuple[int, int]:
    """How many rows equal an earlier one, and of how many; rows of a single number or of zeros cannot be told to be copies."""
    if units.shape[1] < 2:
        return 0, len(units)
    # Equal rows have equal sums, weighted in any way: a cheap first look.
    marks = units @ np.random.default_rng(0).normal(size=units.shape[1]).astype(np.float32)
    marks, rows = marks[marks != 0], units[marks != 0]
    if len(np.unique(marks)) == len(marks):
        return 0, len(marks)
    return len(rows) - len(np.unique(rows, axis=0)), len(rows)


def _orthogonal_gain(matrix: np.ndarray) -> float | None:
    """The length of the rows (or the columns, whichever are fewer), where they stand at right angles and are equally long."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if len(short) < 4 or short.shape[1] < 8:
        return None
    vectors = short[:_VECTORS].astype(np.float64)
    products = vectors @ vectors.T
    lengths = np.sqrt(np.diag(products))
    if not lengths.all() or not np.isfinite(lengths).all() or lengths.std() > 0.01 * lengths.mean():
        return None
    angles = (products / np.outer(lengths, lengths))[~np.eye(len(vectors), dtype=bool)]
    is_orthogonal = float(np.sqrt((angles**2).mean())) <= _ORTHOGONAL / math.sqrt(short.shape[1])
    return float(lengths.mean()) if is_orthogonal else None
