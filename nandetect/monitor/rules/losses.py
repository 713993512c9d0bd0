"""The loss by itself: it diverges, or stays where a guess would be."""

from __future__ import annotations

import math

import numpy as np

from nandetect import wording
from nandetect.findings import finding
from nandetect.monitor.rules.columns import Course, middle
from nandetect.records import Finding

# Factors by which a diverged loss lies over its best stretch, and over its start. Noisy losses and those of two players (a GAN's) rise
# too, but not so far over the start.
_OVER_BEST, _OVER_START = 3.0, 1.5
_STRETCH_POINTS = 20
# A loss within 3 % of chance, ln of the number of classes (CS231n), is at chance. So is one down to 0.9 of it where labels are shuffled:
# those are learned by heart in the end, slowly.
_CHANCE, _BY_HEART = 0.03, 0.9
_ENOUGH, _LONG = 200, 300
# The least part of the slope that is kept from one batch to the next where labels mean the same in both. Where they mean nothing, it is 0
# (measured -0.1 to 0.05 after the first steps).
_IN_COMMON = 0.25
# The size of all updates together over that of the parameters below which nothing could have been learned yet.
_MOVED = 0.1


_MEANINGLESS = "labels that have nothing to do with the inputs, or inputs that carry nothing"
_EITHER = "labels that have nothing to do with the inputs, or a plateau before anything is learned"


def divergence(course: Course) -> list[Finding]:
    """A loss that stands far above its best and above its start."""
    loss = course.loss[np.isfinite(course.loss)]
    if len(loss) < 3 * _STRETCH_POINTS:
        return []
    stretches = np.array([np.median(part) for part in np.array_split(loss, len(loss) // _STRETCH_POINTS)])
    now, best, start = float(np.median(loss[-_STRETCH_POINTS:])), float(stretches.min()), float(stretches[0])
    if not (now > _OVER_BEST * abs(best) and now > start + (_OVER_START - 1) * abs(start) and _gradient_rose(course)):
        return []
    lowest = int(np.argmin(stretches))
    risen = lowest + int(np.argmax(stretches[lowest:] > best + abs(best)))
    step = int(course.steps[np.flatnonzero(np.isfinite(course.loss))[min(risen * len(loss) // len(stretches), len(loss) - 1)]])
    return [
        finding(
            "divergence",
            "error",
            f"the loss rose from {best:.3g} to {now:.3g} from about step {step} on: {wording.times(now / max(abs(best), 1e-12))} its best",
            cause="training that became unstable",
            step=step,
            measured=now,
            expected=best,
            help="lower the learning rate or let it decay, clip the gradient's norm, and go on from a checkpoint before that step",
        )
    ]


def loss_at_chance(course: Course) -> list[Finding]:
    """A cross-entropy that stays where guessing among the classes would put it."""
    if course.points < _ENOUGH or not math.isfinite(course.chance) or not math.isfinite(course.last_loss):
        return []
    level = course.last_loss / course.chance
    slope_kept = course.slope_kept(slice(course.points // 4, course.points))
    nothing_common = slope_kept < _IN_COMMON if math.isfinite(slope_kept) else _moved(course) > _MOVED
    near = _BY_HEART < level < 1.1 and nothing_common and (math.isfinite(slope_kept) or course.points >= _LONG)
    if not (abs(level - 1) < _CHANCE or near):
        return []
    classes = round(math.exp(course.chance))
    # A slope that no other batch shares is what random labels give.
    cause = _MEANINGLESS if math.isfinite(slope_kept) and nothing_common else _EITHER
    return [
        finding(
            "loss-at-chance",
            "warning",
            f"after {course.points:,} steps the loss is {course.last_loss:.3g}, what a guess among {classes} classes costs "
            f"(ln {classes} = {course.chance:.3g})",
            cause=cause,
            step=int(course.steps[0]),
            measured=course.last_loss,
            expected=course.chance,
            help="check that inputs and labels are shuffled together and belong together: train on 40 samples until the loss is near 0",
        )
    ]


def _moved(course: Course) -> float:
    """The length of all updates together over the parameters' norm; infinite where no update was given."""
    ratio = middle(course.ratio[course.full])
    return ratio * float(course.steps[-1] - course.steps[0] + 1) if math.isfinite(ratio) else math.inf


def _gradient_rose(course: Course) -> bool:
    """Whether the gradient is larger than at the start. Where two players (a GAN's) trade loss, it need not be."""
    gradient = course.series("gradient")
    if not np.isfinite(gradient).any():
        return True
    return middle(gradient[course.recent]) > middle(gradient[: 2 * _STRETCH_POINTS])
