"""Fewer points of a history that still show its extremes; every number that is left was measured at its step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nandetect.history import History, take

# Points kept of a stretch of steps: its highest and its lowest loss, its largest gradient, and the point of which most was measured.
_PER_STRETCH = 4


def thin(history: History, points: int) -> History:
    """At most `points` points of the history: it is cut into stretches of equally many steps, and each keeps its extremes.

    Half of the points at most are for the peaks of the leaves' gradients, the peaks that stand out most first.
    """
    if len(history) <= points:
        return history
    points_kept = set(_peaks(history, points // 2))
    rankings = _rankings(history)
    for stretch in _stretches(history.steps, max((points - len(points_kept)) // _PER_STRETCH, 1)):
        points_kept |= {int(stretch[ranking[stretch].argmax()]) for ranking in rankings}
    return take(history, np.array(sorted(points_kept)[:points] if points < _PER_STRETCH else sorted(points_kept)))


def sparsest(spans: Sequence[tuple[int, int]], now: int) -> int:
    """The index of the piece that is best merged with the next: together they are the shortest pair for its age.

    `spans` are the first and last step of each piece. Points are so the further apart the older they are. The first piece and the last are
    never merged: they show how the run began, and where it stands.
    """
    ages = [(spans[index + 1][1] - spans[index][0]) / max(now - spans[index][0], 1) for index in range(1, len(spans) - 2)]
    return 1 + int(np.argmin(ages))


def _stretches(steps: np.ndarray, count: int) -> list[np.ndarray]:
    """The points of each part of the run, the parts being of equally many steps; a part without points is left out."""
    least = int(steps.min())
    parts = (steps - least) * count // (int(steps.max()) - least + 1)
    order = np.argsort(parts, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(parts[order])) + 1)


def _rankings(history: History) -> tuple[np.ndarray, ...]:
    """Arrays of which each stretch keeps the point with the largest element; a loss that is not finite is the largest."""
    loss, gradient = (np.asarray(history.series.get(name, np.zeros(len(history))), np.float64) for name in ("loss", "gradient"))
    measured = np.zeros(len(history))
    for values in history.layers.values():
        measured += ~np.isnan(values).all(axis=1)
    high, low = np.nan_to_num(loss, nan=np.inf, posinf=np.inf), np.nan_to_num(-loss, nan=-np.inf)
    return high, low, np.nan_to_num(gradient, nan=-np.inf), measured


def _peaks(history: History, most: int) -> list[int]:
    """The points at which a leaf's gradient is largest, those first at which it stands out most from what is usual for it."""
    gradients = history.layers.get("gradient")
    if gradients is None or gradients.shape[1] == 0:
        return []
    values = np.nan_to_num(np.asarray(gradients, np.float64), nan=0.0)
    peaks = values.argmax(axis=0)
    usual = np.maximum(np.median(values, axis=0), np.finfo(np.float32).tiny)
    order = np.argsort(-(values.max(axis=0) / usual), kind="stable")
    return list(dict.fromkeys(peaks[order].tolist()))[:most]
