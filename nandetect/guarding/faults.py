"""What one thread's calls have shown to be wrong, and what of it was told: each fault once, until its results were finite in between."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

from nandetect import compat
from nandetect.errors import NonFiniteWarning
from nandetect.guarding.recorder import Recorder
from nandetect.guarding.screen import BadLeaves, bad_leaves, bad_metrics
from nandetect.guarding.shared import Shared
from nandetect.guarding.skips import Skips
from nandetect.guarding.tally import Tally
from nandetect.guarding.working import working
from nandetect.program import sources


class Faults:
    """The bad leaves that were found to be no fault (a best loss that starts at inf) or were told already, and the skipped steps."""

    def __init__(self, shared: Shared):
        self._shared = shared
        self._accepted: BadLeaves = set()
        self._told: BadLeaves = set()
        self._skips = Skips()

    @property
    def known(self) -> frozenset[int]:
        """The indices of the leaves that may be bad without being told again."""
        return frozenset(index for index, _ in self._accepted | self._told)

    def forget(self) -> None:
        """Tell of everything again when it comes again."""
        self._accepted, self._told = set(), set()

    def signs(self, recorder: Recorder, out: object) -> tuple[bool, bool]:
        """Whether something that was not told yet is not finite in what a window's calls returned; and whether they skipped steps.

        `out` is what the last of them returned.
        """
        window = recorder.window
        bad = bad_leaves(window.made)
        is_bad = bool(bad - self._accepted - self._told) or bad_metrics([call.small for call in window.calls])
        has_skips = self._skips.suspects(out, window.made, recorder.habits)
        # What is finite again is told when it breaks again.
        self._told &= bad
        return is_bad, has_skips

    def judge(self, recorder: Recorder, tally: Tally, called_at: sources.Place | None, count_skips: bool = False) -> None:
        """Run the calls of a window again, and tell of the first one at fault. Raises `NonFiniteError` where that is asked for."""
        # Only now: whoever finds nothing does not wait for all that locating needs to be imported.
        from nandetect.guarding.replay import replay

        window = recorder.window
        began = time.perf_counter()
        with working, compat.outside_of_traces():
            replayed = replay(self._shared.step, window, self._accepted, recorder.habits, count_skips)
        tally.replays += 1
        tally.replaying += time.perf_counter() - began
        self._skips.enter(replayed.skipped, replayed.skip)
        finding = self._skips.finding(window.calls[-1].number + 1)
        if finding is not None:
            self._shared.findings.append(finding)
            warnings.warn(finding.message, NonFiniteWarning, stacklevel=6)
        if replayed.report is not None:
            # After the first fault most results are likely to be bad: a leaf is told again only after it has been finite in between.
            self._told |= bad_leaves(window.made)
            self._shared.found = next((call.order for call in window.calls if call.number == replayed.report.step), -1)
            recorder.restart()
            self._shared.tell(replace(replayed.report, called_at=sources.frame_at(called_at)))
