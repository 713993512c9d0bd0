"""What is not finite, and what was thrown away because of it."""

from __future__ import annotations

import numpy as np

from nandetect.findings import SKIPS_ENOUGH, SKIPS_RUNNING, SKIPS_SHARE, finding
from nandetect.monitor.rules.columns import Course
from nandetect.monitor.rules.words import listed
from nandetect.records import Finding

# A dynamic loss scale starts too large and is halved until nothing overflows: so many skipped steps at the very start are its way to begin.
_CALIBRATING = 20
_CLEAN_AFTER = 30
# The share of points that have a finite loss, from which on a NaN is no missing value but the loss itself.
_GIVEN = 0.9


def non_finite(course: Course) -> list[Finding]:
    """The first step whose loss or gradient was not finite and that was not skipped."""
    broken = broken_points(course)
    if not broken.any():
        return []
    point = int(np.argmax(broken))
    step, counts = int(course.steps[point]), course.layer("gradient_nonfinite")[point]
    bad = [place for place in np.flatnonzero(np.nan_to_num(counts) > 0)]
    loss_too = bool(bad_loss(course)[point])
    names = [course.leaves[place].path for place in bad]
    what = "the loss" if loss_too else "the gradient"
    where = "" if not bad else " in every layer" if len(bad) == course.trained.sum() else f" of {listed(names)}"
    halves = {leaf.dtype for place, leaf in enumerate(course.leaves) if place in bad or not bad} & {"float16"}
    subject = f"the loss and the gradient{where}" if loss_too and bad else what if loss_too else f"the gradient{where}"
    return [
        finding(
            "non-finite",
            "error",
            f"{subject} {'are' if loss_too and bad else 'is'} not finite from step {step} on",
            cause="a value beyond 65504, the largest of float16" if halves else f"step {step} computed a value that is not finite",
            layer=names[0] if bad and len(bad) < course.trained.sum() else None,
            step=step,
            measured=float(np.nansum(counts)) if bad else float("nan"),
            expected=0,
            help="`nd.guard(step)` or `nd.locate(step, *arguments)` names the operation that made it, and its line",
        )
    ]


def skipped_steps(course: Course) -> list[Finding]:
    """Steps whose gradient was not finite and which changed no parameter, where they are many."""
    skipped = skipped_points(course)
    spoilt = _without_calibration(skipped)
    count, longest = int(spoilt.sum()), _longest(spoilt)
    often = course.points >= SKIPS_ENOUGH and count > SKIPS_SHARE * course.points
    if not count or not (often or longest > SKIPS_RUNNING):
        return []
    step = int(course.steps[int(np.argmax(spoilt))])
    share = count / course.points
    running = f", {longest} of them running" if longest > 1 else ""
    half = any(leaf.dtype == "float16" for leaf in course.leaves)
    return [
        finding(
            "skipped-steps",
            "error" if share > 0.5 else "warning",
            f"{count} of {course.points} steps changed nothing{running}, the first at step {step}: their gradient was not finite",
            cause="a gradient that overflows float16 is thrown away" if half else "a gradient that is not finite is thrown away",
            step=step,
            measured=share,
            expected=SKIPS_SHARE,
            help="a skipped step costs its time and teaches nothing; find what makes it with `nd.guard`, or start with a lower loss scale",
        )
    ]


def bad_gradient(course: Course) -> np.ndarray:
    """bool[T]: some element of some gradient was not finite."""
    return np.any(np.nan_to_num(course.layer("gradient_nonfinite")) > 0, 1)


def bad_loss(course: Course) -> np.ndarray:
    """bool[T]: the loss was not finite. NaN stands for a missing loss too, unless nearly every point has one."""
    loss = course.loss
    given = np.isfinite(loss)
    last = int(np.flatnonzero(given)[-1]) + 1 if given.any() else 0
    whole = last > 0 and given[:last].mean() > _GIVEN
    missing = np.isnan(loss) & (whole | bad_gradient(course))
    return np.isinf(loss) | missing


def skipped_points(course: Course) -> np.ndarray:
    """bool[T]: the gradient was not finite, and the parameters stayed what they were."""
    return bad_gradient(course) & _stayed(course)


def broken_points(course: Course) -> np.ndarray:
    """bool[T]: something was not finite, and no one threw it away."""
    return (bad_gradient(course) | bad_loss(course)) & ~_stayed(course)


def _stayed(course: Course) -> np.ndarray:
    """bool[T]: what was not finite at this point did not reach the parameters, since a later point is sound, or says that they are.

    At the last point only the update can say it.
    """
    bad = bad_gradient(course) | bad_loss(course)
    broken = (np.nan_to_num(course.layer("weight_nonfinite")) > 0).any(1)
    known = np.isfinite(course.layer("weight_nonfinite")).any(1)
    sound = (~bad & np.isfinite(course.layer("gradient")).any(1)) | (known & ~broken)
    later = np.zeros(course.points, bool)
    later[:-1] = np.logical_or.accumulate(sound[::-1])[::-1][1:]
    still = course.layer("update_zero")
    return later | (np.isfinite(still).any(1) & (np.nan_to_num(still, nan=1.0) == 1).all(1))


def _without_calibration(skipped: np.ndarray) -> np.ndarray:
    """Without the steps at the very start that a loss scale takes to come down, once it has."""
    clean = np.flatnonzero(~skipped)
    first = int(clean[0]) if clean.size else len(skipped)
    if 0 < first <= _CALIBRATING and not skipped[first : first + _CLEAN_AFTER].any() and len(skipped) >= first + _CLEAN_AFTER:
        skipped = skipped.copy()
        skipped[:first] = False
    return skipped


def _longest(flags: np.ndarray) -> int:
    """The most in a row that are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
