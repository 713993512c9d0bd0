"""Steps that were skipped because something in them was not finite: no fault now and then, a finding when they are many.

optax's `apply_if_finite` and loss scaling throw such a step's update away. Where that is more than three running, or more than one in a
hundred, the run pays for steps that teach nothing (DeepSpeed #8415, optax #1746).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import jax
import numpy as np

from nandetect.findings import SKIPS_ENOUGH, SKIPS_RUNNING, SKIPS_SHARE, finding
from nandetect.guarding import finite, motion
from nandetect.guarding.recorder import Habits
from nandetect.records import Finding, Report

# The fields of optax's ApplyIfFiniteState.
_COUNTERS = ("notfinite_count", "total_notfinite")


class Skips:
    """The skipped steps of a run so far."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self._running = 0
        self._longest = 0
        self._report: Report | None = None
        self._scales_loss = False
        self._told = False
        self._before: list[float] | None = None

    def suspects(self, out: object, made: Sequence[object], habits: Habits) -> bool:
        """Whether the state says that steps were skipped since it was last seen: a counter grew, or a loss scale fell by halves."""
        before, self._before = self._before, signs(out, _linked_out(made, habits))
        return before is not None and have_grown(before, self._before)

    def running(self, number: int) -> int:
        """How many steps right before this one were skipped."""
        return self._running if self.steps and self.steps[-1] == number - 1 else 0

    def enter(self, steps: Sequence[int], report: Report | None, scales_loss: bool) -> None:
        """Steps that a replay found skipped, in order, why the first of them was, and whether a smaller loss scale could help it."""
        for step in steps:
            self._running = self.running(step) + 1
            self._longest = max(self._longest, self._running)
            self.steps.append(step)
        if self._report is None and report is not None:
            self._report, self._scales_loss = report, scales_loss

    def finding(self, calls: int) -> Finding | None:
        """A finding, once, when they have become too many of `calls` steps."""
        often = calls >= SKIPS_ENOUGH and len(self.steps) > SKIPS_SHARE * calls
        if self._told or not (often or self._longest > SKIPS_RUNNING):
            return None
        self._told = True
        running = f", {self._longest} of them running" if self._longest > 1 else ""
        lower = ", or start with a lower loss scale" if self._scales_loss else ""
        made = ""
        if self._report is not None and (source := self._report.origin.source) is not None:
            made = f": `{self._report.origin.primitive}` at {source.file}:{source.line} made {self._report.origin.value}"
        return finding(
            "skipped-steps",
            "warning",
            f"{len(self.steps)} of {calls} steps changed nothing{running}, the first at step {self.steps[0]}{made}",
            cause="an update that was not finite was thrown away",
            step=self.steps[0],
            measured=len(self.steps) / max(calls, 1),
            expected=SKIPS_SHARE,
            help=f"a skipped step costs its time and teaches nothing; mend what makes it{lower}",
            report=self._report,
        )


def is_skip(habits: Habits, given: Sequence[object], made: Sequence[object], bad: Collection[int], says_so: bool) -> bool:
    """Whether a call threw its update away, as `apply_if_finite` and loss scaling do: it left its state as it was, which others change or
    which `says_so`, with at most a metric `bad`."""
    links = habits.links
    if links is None or len(given) != links.size or max(links.outs, default=-1) >= len(made) or not set(links.outs).isdisjoint(bad):
        return False
    # A step that evaluates never changes its state: of a bad result there nothing was thrown away.
    return motion.stands_still(links, given, made) and (habits.changes_state or says_so or not bad)


def signs(tree: object, state: Sequence[object]) -> list[float]:
    """The counters of skipped steps in a tree, and what may be a loss scale among the leaves of its state."""
    return _counters(tree) + _scales(state)


def have_grown(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether these signs say that steps were skipped in between: a counter grew, or a loss scale fell by halves."""
    return len(before) == len(after) and any(_is_sign(old, new) for old, new in zip(before, after, strict=True))


def _is_sign(old: float, new: float) -> bool:
    if old < 0:  # a counter, told apart by its sign
        return new < old
    ratio = old / new if new else 0.0
    return ratio >= 2 and math.frexp(ratio)[0] == 0.5


def _counters(out: object) -> list[float]:
    """The counters of optax, negated and one less, so that they are told apart from a loss scale by their sign."""
    counters = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(out)[0]:
        if getattr(path[-1] if path else None, "name", None) in _COUNTERS and isinstance(leaf, jax.Array) and not leaf.is_deleted():
            counters.append(-1.0 - float(np.asarray(leaf).max()))
    return counters


def _linked_out(made: Sequence[object], habits: Habits) -> Sequence[object]:
    return habits.links.of_out(made) if habits.links is not None and max(habits.links.outs, default=-1) < len(made) else ()


def _scales(state: Sequence[object]) -> list[float]:
    """What may be a loss scale: a number of at least one, handed from step to step."""
    leaves = [leaf for leaf in state if finite.can_be_bad(leaf) and leaf.size == 1]
    values = [float(np.real(np.asarray(leaf)).reshape(())) for leaf in leaves]
    return [value if value >= 1 else 0.5 for value in values]
