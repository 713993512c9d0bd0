"""The history of a run as numpy arrays, which the rules read, the record keeps and the reports draw. No JAX here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One array of the parameters: its pytree path, written as a person would (`dense.kernel`, `layers[0].w`), its shape and dtype."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A run so far: T points in the order of their `steps` (int64[T], counted from 0), for the L `leaves` in pytree order.

    `series` are float32[T] each: `loss`, whatever other metrics were given, and of all leaves together `gradient`, `weight` and `update`
    (l2 norms), `along` and `along_before` (see `monitor.vitals`). `layers` are float32[T, L] each, by the names of `monitor.vitals.LAYERS`.
    NaN stands where something was not given or not measured at that step; a measured value that was not finite counts under
    `gradient_nonfinite`, and its norm is that of the finite elements.
    A long run is thinned: consecutive steps at its end, further apart before, with the extremes kept.
    """

    leaves: tuple[Leaf, ...] = ()
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    series: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def point_bytes(self) -> int:
        """The bytes of one point."""
        return 8 + 4 * (len(self.series) + len(self.layers) * len(self.leaves))


def take(history: History, points: np.ndarray | slice) -> History:
    """The history at some of its points."""
    return History(
        leaves=history.leaves,
        steps=history.steps[points],
        series={name: array[points] for name, array in history.series.items()},
        layers={name: array[points] for name, array in history.layers.items()},
    )


def join(pieces: Sequence[History], leaves: tuple[Leaf, ...] | None = None) -> History:
    """Consecutive pieces of one run as one history, with NaN where a piece lacks a series or has no leaves.

    `leaves`, where left out, are those of the last piece that has some.
    """
    if leaves is None:
        leaves = next((piece.leaves for piece in reversed(pieces) if piece.leaves), ())
    if len(pieces) == 1 and pieces[0].leaves == leaves != ():
        return pieces[0]
    if not pieces:
        return History(leaves=leaves)
    layers = [piece.layers if piece.leaves else {} for piece in pieces]
    return History(
        leaves=leaves,
        steps=np.concatenate([piece.steps for piece in pieces]),
        series=_joined([piece.series for piece in pieces], [(len(piece),) for piece in pieces]),
        layers=_joined(layers, [(len(piece), len(leaves)) for piece in pieces]),
    )


def _joined(columns: Sequence[Mapping[str, np.ndarray]], shapes: Sequence[tuple[int, ...]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for arrays in columns for name in arrays)
    return {
        name: np.concatenate(
            [
                np.asarray(arrays[name], np.float32) if name in arrays else np.full(shape, np.nan, np.float32)
                for arrays, shape in zip(columns, shapes, strict=True)
            ]
        )
        for name in names
    }
