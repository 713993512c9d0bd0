"""Judging a run while it is still training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from nandetect.history import History
from nandetect.monitor.rules import judge
from nandetect.records import Finding

# Seconds between two judgements, and the share of the time that they may take.
_SECONDS, _SHARE = 1.0, 0.01


class Judging:
    """Judges a run now and then, and calls `tell` with its new errors and warnings; those of the rules in `known` are left out."""

    def __init__(self, history: Callable[[], History], tell: Callable[[list[Finding]], object], known: Iterable[str] = ()):
        self._history, self._tell, self._known = history, tell, frozenset(known)
        self._reported: set[tuple[str, str | None]] = set()
        self._next = time.perf_counter() + _SECONDS

    def judge_if_due(self) -> None:
        """Judge the run, if the last judgement is long enough ago."""
        began = time.perf_counter()
        if began < self._next:
            return
        loud = [finding for finding in judge(self._history()) if finding.severity != "note" and finding.rule not in self._known]
        new = [finding for finding in loud if (finding.rule, finding.layer) not in self._reported]
        self._reported |= {(finding.rule, finding.layer) for finding in new}
        if new:
            self._tell(new)
        ended = time.perf_counter()
        self._next = ended + max(_SECONDS, (ended - began) / _SHARE)
