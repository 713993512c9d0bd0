"""When to look at what a guarded step returned: so seldom that looking costs little, and never later than after so many calls."""

from __future__ import annotations

# The share of the time that looking may take, with copying the state that the step takes from the next look's first call.
SHARE = 0.005
# The most calls between two looks.
LONGEST = 500


class Schedule:
    """One thread's looks: what the last one took, and how fast the calls come. All times are of `time.perf_counter`."""

    def __init__(self, check_every: int | None, now: float):
        self._check_every = check_every
        # Seconds from the beginning of one call to that of the next, as last measured.
        self.call_seconds = 1.0
        self._began = self._looked = now
        # Seconds of a look, recording the first call after it included; and of recording that first call alone.
        self._look_seconds = self._start_seconds = 0.0

    def begin(self, now: float) -> None:
        """The first call after a look begins."""
        self._began = now

    def started(self, seconds: float) -> None:
        """Recording the first call after a look took this long: it copies the state that the step takes, so it counts with the look."""
        self._start_seconds = seconds

    def looked(self, began: float, ended: float, calls: int) -> None:
        """A look at the results of so many calls is over."""
        self.call_seconds = (began - self._began) / calls
        self._looked = ended
        self._look_seconds = ended - began + self._start_seconds

    def is_due(self, calls: int, now: float) -> bool:
        """Whether to look now that so many calls were made: after as many as asked for, else when a look is cheap beside the time since."""
        if self._check_every is not None:
            return calls >= self._check_every
        return calls >= LONGEST or now - self._looked >= self._look_seconds / SHARE

    def calls(self) -> int:
        """How many calls there will be from one look to the next, as far as can be told from the last look."""
        return self._check_every or min(int(self._look_seconds / SHARE / self.call_seconds), LONGEST)
