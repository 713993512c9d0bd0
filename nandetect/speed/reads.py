"""Numbers that a program reads while it runs: where, how often, and how long it waits for them."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from nandetect.program import sources
from nandetect.program.sources import Place, code_at
from nandetect.speed.prices import Crossing

# The latest readings at one line, and how many of them are enough to judge by.
_LATEST, _ENOUGH = 500, 20
# A loop that reads less often than this, for each call of the compiled function that it calls most, does not read each step.
_EACH = 0.5
_LONGEST = 60


@dataclass(slots=True)
class Line:
    """The readings at one line: how many, when the last began, and for the latest (seconds since the one before, seconds waited)."""

    count: int = 0
    began: float = 0.0
    own: float = 0.0
    latest: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_LATEST))


class Reads:
    """All readings of a program, line by line."""

    def __init__(self) -> None:
        self._lines: dict[Place, Line] = {}

    def enter(self, began: float, waited: float, own: float) -> None:
        """One reading, which began then and waited so long; `own` is what looking at it took, which is not the program's."""
        place = sources.caller()
        if place is None:
            return
        line = self._lines.setdefault(place, Line())
        if line.count:
            line.latest.append((began - line.began - line.own, waited))
        line.count, line.began, line.own = line.count + 1, began, own

    def price(self, name: str, calls: int) -> Crossing | None:
        """The cost of the line that waits longest, of those that read a result about once for each of the `calls` of a compiled function.

        None where no line does.
        """
        each = [(place, line) for place, line in self._lines.items() if line.count >= max(_ENOUGH, _EACH * calls)]
        if not calls or not each:
            return None
        place, line = max(each, key=lambda read: statistics.median(waited for _, waited in read[1].latest))
        seconds = statistics.median(interval for interval, _ in line.latest)
        # The time saved is at best the shorter of waiting and the rest: host and device would then work at once.
        saved = statistics.median(min(waited, max(interval - waited, 0.0)) for interval, waited in line.latest)
        code = code_at(place[0], place[1]).strip()
        what = code if len(code) <= _LONGEST else f"{code[:_LONGEST]}…"
        return Crossing(kind="read", name=name, what=what, seconds=seconds, without_seconds=seconds - saved, where=place)
