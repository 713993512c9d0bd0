"""Steps whose gradient stands out from those around it."""

from __future__ import annotations

import numpy as np

from nandetect.findings import CODES
from nandetect.monitor.rules.course import Course
from nandetect.monitor.rules.words import times
from nandetect.records import Finding

# The median and the median deviation of ln(norm) over this many steps before; mean and sigma hide themselves after one large spike.
WINDOW = 128
# Beyond so many deviations and so many times the median (DETECTORS 5.3, and `benchmarks/training_health.py`).
DEVIATIONS = 6.0
FACTOR = 2.0
# A spike is over soon: it must also stand out from the steps that follow. A gradient that grows and stays is no spike.
_AFTER = 8
_ABOVE_AFTER = 1.5
_LEAST_AFTER = 3
_LEAST_BEFORE = 32
_SIEVE = 0.4


def spikes(course: Course) -> list[Finding]:
    """A finding for each spike of the gradient's norm."""
    gradient = course.series("gradient")
    return [_finding(course, at, gradient[at], usual) for at, usual in found(gradient)]


def found(norm: np.ndarray) -> list[tuple[int, float]]:
    """The points at which a series of norms (float64[T]) spikes, each with the norm that was usual there.

    ln(norm) must lie 6 robust standard deviations (1.4826 times the median absolute deviation) above the median of the 128 points before,
    and at least ln 2 above it.
    """
    # An intermittent zero or a gap is no part of what is usual.
    kept = np.flatnonzero(np.isfinite(norm) & (norm > 0))
    if len(kept) < _LEAST_BEFORE + _LEAST_AFTER:
        return []
    logs = np.log(norm[kept])
    spiking: list[tuple[int, float]] = []
    for at in _candidates(logs):
        before = logs[max(at - WINDOW, 0) : at]
        usual = np.median(before)
        deviation = 1.4826 * np.median(np.abs(before - usual))
        after = np.median(logs[at + 1 : at + 1 + _AFTER])
        stands_out = logs[at] - usual > max(DEVIATIONS * deviation, np.log(FACTOR))
        if stands_out and logs[at] - after > np.log(_ABOVE_AFTER) and not (spiking and kept[at] == spiking[-1][0] + 1):
            spiking.append((int(kept[at]), float(np.exp(usual))))
    return spiking


def _candidates(logs: np.ndarray) -> np.ndarray:
    """Points above both neighbourhoods by what a spike must be: a quick sieve, so that medians are taken at few points."""
    last = len(logs) - _LEAST_AFTER
    width = 2 * _AFTER
    padded = np.concatenate([np.full(width, logs[0]), logs])
    # Over the mean of the steps just before by less than a spike is over the median: two spikes among 16 do not hide a third.
    sums = np.cumsum(np.concatenate([[0.0], padded]))
    before = (sums[width:-1] - sums[:-1][: len(logs)]) / width
    return np.flatnonzero((logs > before + _SIEVE) & (np.arange(len(logs)) >= _LEAST_BEFORE) & (np.arange(len(logs)) < last))


def _finding(course: Course, at: int, norm: float, usual: float) -> Finding:
    step = int(course.steps[at])
    columns = course.layer("gradient")
    layer = None
    if columns.shape[1]:
        # Against what is usual of each leaf: the one that grew the most.
        before = columns[max(at - WINDOW, 0) : at]
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = columns[at] / np.nanmedian(before, 0) if len(before) else columns[at]
        weighty = np.nan_to_num(columns[at]) > 0.1 * norm
        growth = np.where(np.isfinite(growth) & weighty, growth, 0)
        layer = course.leaves[int(np.argmax(growth))].path if growth.any() else None
    return Finding(
        rule="gradient-spike",
        code=CODES["gradient-spike"],
        severity="warning",
        message=f"the gradient of step {step} is {times(norm / usual)} what is usual there: {norm:.3g} against {usual:.3g}",
        cause="one batch's gradient stands far out",
        layer=layer,
        step=step,
        measured=norm,
        expected=usual,
        help="look at that batch; clip the gradient's norm near its 90th percentile, or lower the learning rate if spikes come often",
    )
