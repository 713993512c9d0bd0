"""Judging a run while it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from nandetect.history import History
from nandetect.monitor.rules import judge
from nandetect.records import Finding

# Seconds between two judgements, and the share of the time that they may take.
_SECONDS, _SHARE = 1.0, 0.01


class Judging:
    """Judges a run now and then, and tells `found` what is new: errors and warnings, the rules in `known` left out."""

    def __init__(self, history: Callable[[], History], found: Callable[[list[Finding]], object], known: Iterable[str] = ()):
        self._history, self._found, self._known = history, found, frozenset(known)
        self._told: set[tuple[str, str | None]] = set()
        self._next = time.perf_counter() + _SECONDS

    def again(self) -> None:
        """Judge, if it is time to."""
        began = time.perf_counter()
        if began < self._next:
            return
        loud = [finding for finding in judge(self._history()) if finding.severity != "note" and finding.rule not in self._known]
        new = [finding for finding in loud if (finding.rule, finding.layer) not in self._told]
        self._told |= {(finding.rule, finding.layer) for finding in new}
        if new:
            self._found(new)
        ended = time.perf_counter()
        self._next = ended + max(_SECONDS, (ended - began) / _SHARE)
