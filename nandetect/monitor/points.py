"""The points that were read of a run, joined into one history and kept within bounds. No JAX here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nandetect.history import History, Leaf, join, take
from nandetect.monitor.vitals import LAYERS, MISSING, TOTALS, WHOLE

# Bytes that a history may take at most, and the points at its beginning that are always kept.
BYTES = 32 * 2**20
_FIRST = 64
# Consecutive older points of which only the extreme ones are kept.
_BUCKET = 16


def history(leaves: tuple[Leaf, ...], steps: np.ndarray, metrics: Mapping[str, np.ndarray], vitals: np.ndarray) -> History:
    """The history of some steps from what the program measured: `vitals` are float32[T, 2 + L * K], as `in_step.full` gives them."""
    vitals = np.where(vitals == np.float32(MISSING), np.float32(np.nan), vitals).astype(np.float32, copy=False)
    whole = {name: vitals[:, index] for index, name in enumerate(WHOLE)}
    columns = vitals[:, len(WHOLE) :].reshape(len(steps), len(LAYERS), len(leaves))
    layers = {name: columns[:, index] for index, name in enumerate(LAYERS)}
    totals = {name: _total(layers[name]) for name in TOTALS}
    return History(leaves=leaves, steps=steps, series={**metrics, **totals, **whole}, layers=layers)


def _total(norms: np.ndarray) -> np.ndarray:
    """The norm of all leaves together; NaN where none was measured."""
    measured = ~np.isnan(norms)
    total = np.sqrt(np.square(norms, dtype=np.float64).sum(axis=1, where=measured))
    total = np.minimum(total, np.finfo(np.float32).max)
    return np.where(measured.any(axis=1), total, np.nan).astype(np.float32)


def thinned(history: History) -> History:
    """The later half of a history as it is, and of the earlier half the points that say most.

    Of every `_BUCKET` points there stay: the smallest and the largest gradient and loss, the first that is not finite, and the first of
    which everything was measured. `logbook.thinning.thin` would not do here: it brings a history down to a number of points to draw or to
    keep on disk, and leaves no stretch of consecutive steps, which the rules need.
    """
    middle = len(history) // 2
    keep = set(range(min(_FIRST, middle))) | set(range(middle, len(history)))
    bad, full = _is_bad(history), np.asarray(~np.isnan(_layer(history, "weight")).all(axis=1))
    curves = [history.series[name] for name in ("gradient", "loss") if name in history.series]
    for start in range(_FIRST, middle, _BUCKET):
        rows = np.arange(start, min(start + _BUCKET, middle))
        for mask in (bad, full):
            keep.update(rows[mask[rows]][:1].tolist())
        for curve in curves:
            known = rows[np.isfinite(curve[rows])]
            if len(known):
                keep.update((int(known[curve[known].argmin()]), int(known[curve[known].argmax()])))
    return take(history, np.array(sorted(keep), np.int64))


def _is_bad(history: History) -> np.ndarray:
    bad = np.asarray(((_layer(history, "gradient_nonfinite") > 0) | (_layer(history, "weight_nonfinite") > 0)).any(axis=1))
    return bad | np.isinf(history.series["loss"]) if "loss" in history.series else bad


def _layer(history: History, name: str) -> np.ndarray:
    """A column of all leaves; of none where only metrics were given."""
    return history.layers.get(name, np.zeros((len(history), 0), np.float32))


class Points:
    """The points of a run as they come, within about `most_bytes` bytes."""

    def __init__(self, most_bytes: int = BYTES):
        self._parts: list[History] = []
        self._most_bytes = most_bytes

    def add(self, part: History) -> None:
        """Add newly read points; thin all points where they take more than `most_bytes`."""
        self._parts.append(part)
        points = sum(map(len, self._parts))
        if points > max(self._most_bytes // part.point_bytes, 4 * _FIRST):
            self._parts = [thinned(join(self._parts))]

    def history(self) -> History:
        """The points so far as one history."""
        if not self._parts:
            return History(layers={name: np.zeros((0, 0), np.float32) for name in LAYERS})
        self._parts = [join(self._parts)]
        return self._parts[0]
