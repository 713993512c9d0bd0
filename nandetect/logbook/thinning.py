"""Fewer points of a history that still show its extremes; every number that is left was measured at its step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nandetect.history import History, take

# Points kept of a stretch of steps: its highest and its lowest loss, its largest gradient, and the point of which most was measured.
_A_BUCKET = 4


def thin(history: History, points: int) -> History:
    """At most `points` points of the history: of each of some stretches of equally many steps the extremes of loss and gradient.

    The point at which a leaf's gradient is largest is kept too, for as many leaves as half of the points reach, those first whose peak
    stands out most.
    """
    if len(history) <= points:
        return history
    kept = set(_peaks(history, points // 2))
    orders = _orders(history)
    for stretch in _stretches(history.steps, max((points - len(kept)) // _A_BUCKET, 1)):
        kept |= {int(stretch[array[stretch].argmax()]) for array in orders}
    return take(history, np.array(sorted(kept)[:points] if points < _A_BUCKET else sorted(kept)))


def sparsest(spans: Sequence[tuple[int, int]], now: int) -> int:
    """Which of the pieces, each from its first to its last step, is best made one with the next: the shortest against its age.

    So the distance of points grows with their age. The first piece and the last stay whole: how a run began, and where it is.
    """
    ages = [(spans[index + 1][1] - spans[index][0]) / max(now - spans[index][0], 1) for index in range(1, len(spans) - 2)]
    return 1 + int(np.argmin(ages))


def _stretches(steps: np.ndarray, count: int) -> list[np.ndarray]:
    """The points by the part of the run that they lie in; a part without any is left out."""
    least = int(steps.min())
    parts = (steps - least) * count // (int(steps.max()) - least + 1)
    order = np.argsort(parts, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(parts[order])) + 1)


def _orders(history: History) -> tuple[np.ndarray, ...]:
    """Arrays whose largest elements are what is to be kept; a loss that is not finite comes before all others."""
    loss, gradient = (np.asarray(history.series.get(name, np.zeros(len(history))), np.float64) for name in ("loss", "gradient"))
    measured = np.zeros(len(history))
    for values in history.layers.values():
        measured += ~np.isnan(values).all(axis=1)
    high, low = np.nan_to_num(loss, nan=np.inf, posinf=np.inf), np.nan_to_num(-loss, nan=-np.inf)
    return high, low, np.nan_to_num(gradient, nan=-np.inf), measured


def _peaks(history: History, most: int) -> list[int]:
    """Where each leaf's gradient is largest: first the points at which one stands out most from what is usual for it."""
    gradients = history.layers.get("gradient")
    if gradients is None or gradients.shape[1] == 0:
        return []
    values = np.nan_to_num(np.asarray(gradients, np.float64), nan=0.0)
    peaks = values.argmax(axis=0)
    usual = np.maximum(np.median(values, axis=0), np.finfo(np.float32).tiny)
    order = np.argsort(-(values.max(axis=0) / usual), kind="stable")
    return list(dict.fromkeys(peaks[order].tolist()))[:most]
