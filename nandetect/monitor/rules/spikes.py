"""Steps whose gradient stands out from those around it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nandetect import wording
from nandetect.findings import finding
from nandetect.monitor.rules.columns import Course
from nandetect.records import Finding

# The steps before a point from which the usual norm is read, as a median: a mean and a sigma would be spoilt by one large spike.
WINDOW = 128
# Robust deviations by which a spike lies over the usual norm, and the factor (in a survey of detectors 6 and 2 of the plain norm found all
# spikes and gave no false alarm). It also lies `TAIL` times as far over it as the window's 95th percentile, where heavy tails show.
PLAIN, PLAIN_FACTOR = 6.0, 2.4
# The same two over the norm that is usual for a batch of that loss: half and more of the spread of ln(norm) goes with the batch's loss.
GIVEN_LOSS, GIVEN_LOSS_FACTOR = 3.7, 2.1
TAIL = 2.0
# The steps after a spike, the factor by which it stands out from them, and the fewest of them: a gradient that grows and stays is no spike.
_AFTER, _ABOVE_AFTER, _LEAST_AFTER = 8, 1.5, 3
_LEAST_BEFORE = 32
# A sieve, so that medians are taken at few points: the least ln by which a spike lies over the mean of the 16 steps before.
_SIEVE = 0.3
_TUKEY = 2.5
# The share of steps, the number and the size from which on spikes are a fault. Below, a spike is only something to look at: healthy
# recurrent nets have up to five in a thousand steps (measured).
OFTEN, _SEVERAL, LARGE = 9e-3, 5, 10.0
_DONE = 0.02


def spikes(course: Course) -> list[Finding]:
    """A finding for each spike of the gradient's norm: a note, and a warning where they are many or one is tenfold."""
    gradient = course.series("gradient")
    points = spike_points(gradient, course.loss)
    # Spikes do not count where next to nothing is left to learn: the gradient is small there, and any batch stands out.
    counts = [not course.loss[point] < _DONE * course.first_loss for point, _ in points]
    often = sum(counts) >= _SEVERAL and sum(counts) >= OFTEN * course.points
    grave = [count and (often or gradient[point] > LARGE * usual) for count, (point, usual) in zip(counts, points, strict=True)]
    return [_finding(course, point, gradient[point], usual, is_grave) for is_grave, (point, usual) in zip(grave, points, strict=True)]


def spike_points(norm: np.ndarray, loss: np.ndarray | None = None) -> list[tuple[int, float]]:
    """The points at which a series of norms (float64[T]) spikes, each with the norm that was usual there.

    ln(norm) is compared with the 128 points before twice: with their median, and with a line fitted to them, straight in time and in the
    logarithm of the batch's `loss` (float64[T]), in which outliers are clipped.
    """
    # Zeros and gaps in the series are no part of what is usual.
    known = np.isfinite(norm) & (norm > 0)
    if not known.any():
        return []
    if loss is not None and np.isfinite(loss[known]).mean() > 0.9:
        known &= np.isfinite(loss)
    known_points = np.flatnonzero(known)
    if len(known_points) < _LEAST_BEFORE + _LEAST_AFTER:
        return []
    logs = np.log(norm[known_points])
    losses = (
        np.log(np.abs(loss[known_points]) + 1e-12)
        if loss is not None and np.isfinite(loss[known_points]).all()
        else np.zeros(len(known_points))
    )
    spiking: list[tuple[int, float]] = []
    for points, width in _batches(_candidates(logs), (32, 64, WINDOW)):
        over, usual = _over(logs, losses, points, width)
        after = np.array([np.median(logs[point + 1 : point + 1 + _AFTER]) for point in points])
        is_spike = over & (logs[points] - after > np.log(_ABOVE_AFTER))
        spiking += [
            (int(known_points[point]), float(np.exp(level))) for point, level in zip(points[is_spike], usual[is_spike], strict=True)
        ]
    return [spike for index, spike in enumerate(spiking) if index == 0 or spike[0] != spiking[index - 1][0] + 1]


def _candidates(logs: np.ndarray) -> np.ndarray:
    """The points that may be spikes. The bound over the mean of those just before is low, so that two spikes among 16 hide no third."""
    width = 2 * _AFTER
    padded = np.concatenate([np.full(width, logs[0]), logs])
    sums = np.cumsum(np.concatenate([[0.0], padded]))
    before = (sums[width:-1] - sums[:-1][: len(logs)]) / width
    indices = np.arange(len(logs))
    return np.flatnonzero((logs > before + _SIEVE) & (indices >= _LEAST_BEFORE) & (indices < len(logs) - _LEAST_AFTER))


def _batches(points: np.ndarray, widths: tuple[int, ...]) -> Iterator[tuple[np.ndarray, int]]:
    """The points, 512 at most at a time, with the width of the window that fits before them."""
    for width, next_width in zip(widths, (*widths[1:], None), strict=True):
        fitting = points[(points >= width) & (points < next_width if next_width else True)]
        for start in range(0, len(fitting), 512):
            yield fitting[start : start + 512], width


def _over(logs: np.ndarray, losses: np.ndarray, points: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """bool[C]: the points that stand out from the `width` before; float64[C]: ln of the norm that was usual there."""
    rows = points[:, None] + np.arange(-width, 0)
    before, now = logs[rows], logs[points]
    usual = np.median(before, 1)
    plain = _stands_out(now - usual, before - usual[:, None], PLAIN, PLAIN_FACTOR)
    lines = np.stack([np.ones(rows.shape), np.broadcast_to(np.arange(-width, 0) / width, rows.shape), losses[rows]], 2)
    point_row = np.stack([np.ones(len(points)), np.zeros(len(points)), losses[points]], 1)
    mean_loss = losses[rows].mean(1)
    lines[:, :, 2] -= mean_loss[:, None]
    point_row[:, 2] -= mean_loss
    normal = np.einsum("cwi,cwj->cij", lines, lines) + 1e-6 * np.eye(3)
    fit, residuals = _robust_fit(lines, normal, before)
    centre = np.median(residuals, 1)
    expected = np.einsum("ci,ci->c", point_row, fit) + centre
    given_loss = _stands_out(now - expected, residuals - centre[:, None], GIVEN_LOSS, GIVEN_LOSS_FACTOR)
    return plain | given_loss, np.where(plain, usual, expected)


def _robust_fit(lines: np.ndarray, normal: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of a least-squares fit whose outliers were clipped at 2.5 deviations, and its residuals."""
    inverse = np.linalg.inv(normal)
    residuals = values - np.einsum("cwi,cij,cvj,cv->cw", lines, inverse, lines, values, optimize=True)
    spread = 1.4826 * np.median(np.abs(residuals - np.median(residuals, 1, keepdims=True)), 1, keepdims=True) + 1e-6
    clipped = values - residuals + np.clip(residuals, -_TUKEY * spread, _TUKEY * spread)
    fit = np.einsum("cij,cvj,cv->ci", inverse, lines, clipped, optimize=True)
    return fit, values - np.einsum("cwi,ci->cw", lines, fit)


def _stands_out(above: np.ndarray, residuals: np.ndarray, deviations: float, factor: float) -> np.ndarray:
    deviation = 1.4826 * np.median(np.abs(residuals), 1)
    tail = np.partition(residuals, -max(residuals.shape[1] // 20, 1), axis=1)[:, -max(residuals.shape[1] // 20, 1)]
    return above > np.maximum(np.maximum(deviations * deviation, TAIL * tail), np.log(factor))


def _finding(course: Course, point: int, norm: float, usual: float, grave: bool) -> Finding:
    step = int(course.steps[point])
    columns = course.layer("gradient")
    layer = None
    if columns.shape[1]:
        # The layer of the spike is the leaf that grew the most over its own usual norm.
        before = columns[max(point - WINDOW, 0) : point]
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = columns[point] / np.nanmedian(before, 0) if len(before) else columns[point]
        weighty = np.nan_to_num(columns[point]) > 0.1 * norm
        growth = np.where(np.isfinite(growth) & weighty, growth, 0)
        layer = course.leaves[int(np.argmax(growth))].path if growth.any() else None
    return finding(
        "gradient-spike",
        "warning" if grave else "note",
        f"the gradient of step {step} is {wording.times(norm / usual)} what is usual there: {norm:.3g} against {usual:.3g}",
        cause="one batch's gradient stands far out",
        layer=layer,
        step=step,
        measured=norm,
        expected=usual,
        help="look at that batch; clip the gradient's norm near its 90th percentile, or lower the learning rate if spikes come often",
    )
