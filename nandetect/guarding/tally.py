"""What watching took in one thread."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What watching took in one thread, in seconds. Quick calls are counted and not timed: see `quick_seconds`.

    `began` is when the thread's first call did, `last` when its last one was seen; `most` are the most bytes that were kept.
    """

    began: float
    last: float
    calls: int = 0
    quick: int = 0
    looks: int = 0
    replays: int = 0
    recording: float = 0.0
    looking: float = 0.0
    replaying: float = 0.0
    most: int = 0

    def looked(self, began: float, ended: float, kept: int) -> None:
        """One more look, at calls for which so many bytes were kept."""
        self.last = ended
        self.looking += ended - began
        self.looks += 1
        self.most = max(self.most, kept)
