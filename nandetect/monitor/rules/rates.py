"""A learning rate too high or too low, from how far the updates go and how far the loss still falls along them."""

from __future__ import annotations

import math

import numpy as np

from nandetect import wording
from nandetect.findings import finding
from nandetect.monitor.rules.beginning import unlearned
from nandetect.monitor.rules.columns import Course, middle
from nandetect.records import Finding

# The size of an update over that of the parameters from which on it is violent. Measured in healthy runs: 0.03 at most, in the first steps.
VIOLENT = 0.1
# The first points, in which violent updates are looked for; how many there must be; and the size of one that is enough alone.
_EARLY, _LEAST_VIOLENT, _AS_LARGE = 60, 3, 1.0
# The harm that violent updates do: the loss over that of the start, at its worst or for good; and the growth of the parameters' norm.
_WORSE, _NO_BETTER, _SWOLLEN = 3.0, 0.7, 2.0
# The part of the loss's slope kept to the end of a step below which the step ends well up the other side of a valley. At rest near a
# minimum of a noisy loss 0 to -0.45 are usual.
_OVERSHOT = -0.6
# The size of all updates together over that of the parameters below which a run cannot have got anywhere, and the least part of the slope
# that a step keeps in such a run.
TIMID, _KEPT = 0.05, 0.3
_FALLEN = 0.85
_ENOUGH = 100


def learning_rate_high(course: Course) -> list[Finding]:
    """Updates so large that the loss jumps instead of falling."""
    if course.points < _LEAST_VIOLENT and not course.broken:
        return []
    ratio = np.nan_to_num(course.ratio[:_EARLY])
    largest = np.sort(ratio)[-_LEAST_VIOLENT:]
    violent = (len(largest) == _LEAST_VIOLENT and largest.min() > VIOLENT) or largest.max() > _AS_LARGE
    if violent and _harmed(course):
        point = int(np.argmax(ratio > VIOLENT))
        return [_high(course, point, float(ratio[point]), _loss_in_words(course))]
    half = slice(course.points // 2, course.points)
    slope_kept, ratio_now = course.slope_kept(half), float(middle(course.ratio[course.late]))
    if course.points >= _ENOUGH and slope_kept < _OVERSHOT and course.last_loss > 0.5 * course.first_loss and ratio_now > 1e-3:
        return [
            _high(
                course, half.start, ratio_now, f"each step ends where the loss rises again, {-slope_kept:.2g} times as steeply as it fell"
            )
        ]
    return []


def learning_rate_low(course: Course) -> list[Finding]:
    """Updates so small that all of them together hardly move the parameters, along a loss that would fall further."""
    if course.points < _ENOUGH or not math.isfinite(course.last_loss):
        return []
    ratio = float(middle(course.ratio[course.full]))
    steps = int(course.steps[-1] - course.steps[0]) + 1
    moved, slope_kept = ratio * steps, course.slope_kept(slice(0, course.points))
    if not 0 < moved < TIMID or slope_kept < _KEPT or course.last_loss < _FALLEN * course.first_loss or course.last_loss < 1e-3:
        return []
    return [
        finding(
            "learning-rate-low",
            "warning",
            f"in {steps:,} steps the updates add up to {moved:.1%} of the parameters at most ({ratio:.1e} a step), and the loss "
            f"went from {course.first_loss:.3g} to {course.last_loss:.3g}",
            cause="a learning rate too low",
            step=int(course.steps[0]),
            measured=ratio,
            expected=1e-3,
            help="raise the learning rate, ten times at first"
            + (f": a step keeps {min(slope_kept, 1):.0%} of the slope it began with" if slope_kept > 0 else ""),
        )
    ]


def _harmed(course: Course) -> bool:
    """Whether the loss got much worse in the first steps or never better than at the start, and the parameters grew."""
    if course.broken:
        return True
    early = course.loss[: 4 * _EARLY]
    finite = early[np.isfinite(early)]
    if not finite.size:
        return False
    # The very first loss is that of the untouched parameters; later ones may be what the updates made of it.
    first = min(abs(float(finite[0])), abs(course.first_loss))
    worse = finite.max() > _WORSE * max(first, 0.1)
    weight = course.series("weight")
    grown = middle(weight[course.late]) > _SWOLLEN * weight[0]
    return bool(
        (worse and grown) or (unlearned(course) and (worse or grown)) or (worse and course.last_loss > _NO_BETTER * course.first_loss)
    )


def _loss_in_words(course: Course) -> str:
    """A phrase that says how the loss went."""
    finite = course.loss[: 4 * _EARLY]
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return "no loss was given, or none that is finite"
    if course.broken:
        return f"the loss went from {finite[0]:.3g} to {finite.max():.3g} and was not finite from step {int(course.steps[-1]) + 1} on"
    return f"the loss went from {finite[0]:.3g} to {finite.max():.3g} and stands at {course.last_loss:.3g}"


def _high(course: Course, point: int, ratio: float, seen: str) -> Finding:
    step = int(course.steps[point])
    relative = wording.times(ratio) if ratio >= 1 else f"{ratio:.2g} times"
    return finding(
        "learning-rate-high",
        "error" if unlearned(course) or ratio > VIOLENT else "warning",
        f"updates are {relative} the size of the parameters (about 0.001 is usual) at step {step}; {seen}",
        cause="a learning rate too high",
        step=step,
        measured=ratio,
        expected=1e-3,
        help="lower the learning rate ten times, or warm it up over the first few hundred steps",
    )
