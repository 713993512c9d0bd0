"""Steps that were skipped because something in them was not finite: no fault now and then, a finding when they are many.

optax's `apply_if_finite` and loss scaling throw such a step's update away. Where that is more than three running, or more than one in a
hundred, the run pays for steps that teach nothing (DeepSpeed #8415, optax #1746).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np

from nandetect.findings import SKIPS_ENOUGH, SKIPS_RUNNING, SKIPS_SHARE, finding
from nandetect.guarding import finite
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
        self._told = False
        self._before: list[float] | None = None

    def suspects(self, out: object, made: Sequence[object], habits: Habits) -> bool:
        """Whether the state says that steps were skipped since it was last seen: a counter grew, or a loss scale fell by halves."""
        seen = _counters(out) + _scales(made, habits)
        before, self._before = self._before, seen
        if before is None or len(before) != len(seen):
            return False
        return any(_is_sign(old, new) for old, new in zip(before, seen, strict=True))

    def enter(self, steps: Sequence[int], report: Report | None) -> None:
        """Steps that a replay found skipped, in order, and why the first of them was."""
        for step in steps:
            self._running = self._running + 1 if self.steps and self.steps[-1] == step - 1 else 1
            self._longest = max(self._longest, self._running)
            self.steps.append(step)
        self._report = self._report or report

    def finding(self, calls: int) -> Finding | None:
        """A finding, once, when they have become too many of `calls` steps."""
        often = calls >= SKIPS_ENOUGH and len(self.steps) > SKIPS_SHARE * calls
        if self._told or not (often or self._longest > SKIPS_RUNNING):
            return None
        self._told = True
        running = f", {self._longest} of them running" if self._longest > 1 else ""
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
            help="a skipped step costs its time and teaches nothing; mend what makes it, or start with a lower loss scale",
            report=self._report,
        )


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


def _scales(made: Sequence[object], habits: Habits) -> list[float]:
    """What may be a loss scale: a number of at least one, handed from step to step."""
    if habits.links is None or max(habits.links.outs, default=-1) >= len(made):
        return []
    leaves = [leaf for leaf in habits.links.of_out(made) if finite.can_be_bad(leaf) and leaf.size == 1]
    values = [float(np.real(np.asarray(leaf)).reshape(())) for leaf in leaves]
    return [value if value >= 1 else 0.5 for value in values]
