"""Judging a run while it goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from nandetect.audience import Audience
from nandetect.history import History
from nandetect.monitor.rules import judge

# Seconds between two judgements, and the share of the time that they may take.
_SECONDS, _SHARE = 1.0, 0.01


class Judging:
    """Judges a run now and then, and tells what is new."""

    def __init__(self, history: Callable[[], History], audience: Audience):
        self._history, self._audience = history, audience
        self._told: set[tuple[str, str | None]] = set()
        self._next = time.perf_counter() + _SECONDS

    def again(self) -> None:
        """Judge, if it is time to."""
        began = time.perf_counter()
        if began < self._next:
            return
        new = [one for one in judge(self._history()) if one.severity != "note" and (one.rule, one.layer) not in self._told]
        self._told |= {(one.rule, one.layer) for one in new}
        if new:
            self._audience.found(new)
        ended = time.perf_counter()
        self._next = ended + max(_SECONDS, (ended - began) / _SHARE)
