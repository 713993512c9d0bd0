"""Losses and gradients that are not finite, and the steps that were skipped because of them."""

from __future__ import annotations

import numpy as np

from nandetect.findings import SKIPS_ENOUGH, SKIPS_RUNNING, SKIPS_SHARE, finding
from nandetect.monitor.rules.columns import Course
from nandetect.monitor.rules.words import listed
from nandetect.records import Finding

# Skipped steps at the very start that are no fault, as a dynamic loss scale starts too large and is halved until nothing overflows; and
# the steps without a skip that must follow.
_CALIBRATING = 20
_CLEAN_AFTER = 30
# The share of points with a finite loss above which a NaN counts as the loss itself, not as a missing value.
_GIVEN = 0.9


def non_finite(course: Course) -> list[Finding]:
    """The first step whose loss or gradient was not finite and that was not skipped."""
    broken = broken_points(course)
    if not broken.any():
        return []
    point = int(np.argmax(broken))
    step, counts = int(course.steps[point]), course.layer("gradient_nonfinite")[point]
    bad = [index for index in np.flatnonzero(np.nan_to_num(counts) > 0)]
    loss_too = bool(bad_loss(course)[point])
    names = [course.leaves[index].path for index in bad]
    what = "the loss" if loss_too else "the gradient"
    where = "" if not bad else " in every layer" if len(bad) == course.trained.sum() else f" of {listed(names)}"
    halves = {leaf.dtype for index, leaf in enumerate(course.leaves) if index in bad or not bad} & {"float16"}
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
    wasted = _without_calibration(skipped)
    count, longest = int(wasted.sum()), _longest(wasted)
    often = course.points >= SKIPS_ENOUGH and count > SKIPS_SHARE * course.points
    if not count or not (often or longest > SKIPS_RUNNING):
        return []
    step = int(course.steps[int(np.argmax(wasted))])
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
    finite = np.isfinite(loss)
    last = int(np.flatnonzero(finite)[-1]) + 1 if finite.any() else 0
    is_complete = last > 0 and finite[:last].mean() > _GIVEN
    missing = np.isnan(loss) & (is_complete | bad_gradient(course))
    return np.isinf(loss) | missing


def skipped_points(course: Course) -> np.ndarray:
    """bool[T]: the gradient was not finite, and the parameters stayed what they were."""
    return bad_gradient(course) & _stayed(course)


def broken_points(course: Course) -> np.ndarray:
    """bool[T]: something was not finite, and it may have reached the parameters."""
    return (bad_gradient(course) | bad_loss(course)) & ~_stayed(course)


def _stayed(course: Course) -> np.ndarray:
    """bool[T]: nothing that was not finite at this point reached the parameters, as a later point or its parameters are sound.

    At the last point only the update can show it, by changing no parameter.
    """
    bad = bad_gradient(course) | bad_loss(course)
    broken = (np.nan_to_num(course.layer("weight_nonfinite")) > 0).any(1)
    known = np.isfinite(course.layer("weight_nonfinite")).any(1)
    sound = (~bad & np.isfinite(course.layer("gradient")).any(1)) | (known & ~broken)
    later = np.zeros(course.points, bool)
    later[:-1] = np.logical_or.accumulate(sound[::-1])[::-1][1:]
    unchanged = course.layer("update_zero")
    return later | (np.isfinite(unchanged).any(1) & (np.nan_to_num(unchanged, nan=1.0) == 1).all(1))


def _without_calibration(skipped: np.ndarray) -> np.ndarray:
    """The skipped steps without those at the very start in which a loss scale came down, where clean steps follow them."""
    clean = np.flatnonzero(~skipped)
    first = int(clean[0]) if clean.size else len(skipped)
    if 0 < first <= _CALIBRATING and not skipped[first : first + _CLEAN_AFTER].any() and len(skipped) >= first + _CLEAN_AFTER:
        skipped = skipped.copy()
        skipped[:first] = False
    return skipped


def _longest(flags: np.ndarray) -> int:
    """The length of the longest run of flags that are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
