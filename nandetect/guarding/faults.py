"""What one thread's calls have shown to be wrong, and what of it was told: each fault once, until its results were finite in between."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from nandetect import compat
from nandetect.guarding import finite
from nandetect.guarding.motion import Motion
from nandetect.guarding.recorder import Arguments, Call, Habits, Recorder, Window
from nandetect.guarding.roles import may_be_auxiliary
from nandetect.guarding.screen import BadLeaves, bad_leaves, bad_metrics
from nandetect.guarding.shared import Shared
from nandetect.guarding.skips import Skips
from nandetect.guarding.tally import Tally
from nandetect.guarding.working import working
from nandetect.program import sources
from nandetect.records import Frame, Report

if TYPE_CHECKING:
    from nandetect.guarding.aside import Aside
    from nandetect.guarding.replay import Replayed


# Tells of something, as it was asked for: it may raise `NonFiniteError`, or what the program's own function raises.
Telling = Callable[[], None]


class Faults:
    """The bad leaves that were found to be no fault (a best loss that starts at inf) or were told already, and the skipped steps."""

    def __init__(self, shared: Shared):
        self._shared = shared
        self._accepted: BadLeaves = set()
        self._told: BadLeaves = set()
        self._skips = Skips()
        self._motion = Motion()
        # The first of the steps skipped just now of which nothing in the state tells, with its arguments.
        self._idle: tuple[Call, Arguments] | None = None
        # By the index of the result, the first bad one that only stood beside what matters.
        self._beside: dict[int, Aside] = {}

    @property
    def known(self) -> frozenset[int]:
        """The indices of the leaves that may be bad without being told again."""
        return frozenset(index for index, _ in self._accepted | self._told) | frozenset(self._beside)

    def forget(self) -> None:
        """Tell of everything again when it comes again."""
        self._accepted, self._told, self._beside = set(), set(), {}

    def signs(self, recorder: Recorder, out: object) -> tuple[bool, bool]:
        """Whether something that was not told yet is not finite in what a window's calls returned; and whether they skipped steps.

        `out` is what the last of them returned.
        """
        window = recorder.window
        bad = bad_leaves(window.made)
        new = {leaf for leaf in bad - self._accepted - self._told if leaf[0] not in self._beside}
        is_bad = bool(new) or bad_metrics([call.small for call in window.calls])
        has_skips = self._skips.suspects(out, window.made, recorder.habits)
        self._motion.look(window.made, recorder.habits)
        # What is finite again is told when it breaks again.
        self._told &= bad
        return is_bad, has_skips

    def may_wait(self, recorder: Recorder, out: object) -> bool:
        """Whether to judge a first call only with the next one: what is bad in it may stand beside what the next call will be given."""
        (call, *more), links = recorder.window.calls, recorder.habits.links
        if more or call.number or not recorder.habits.may_repeat or (links is not None and links.ins):
            return False
        bad = [index for index, _ in bad_leaves(recorder.window.made)]
        return may_be_auxiliary(out, call.kept, bad)

    def beside(self, value: object, recorder: Recorder) -> Aside | None:
        """What is known of this bad value, if it was taken for one that stands beside what matters."""
        index = next((index for index, leaf in enumerate(recorder.made) if leaf is value), None)
        return self._beside.get(index) if index is not None else None

    def first_beside(self, like: object = None) -> Aside | None:
        """The first bad value that was taken for one beside what matters; `like` another, if one is given."""
        alike = (found for found in self._beside.values() if like is None or found.is_like(like))
        return min(alike, key=lambda found: found.call.order, default=None)

    def located_beside(self, found: Aside, called_at: sources.Place | None) -> Report | None:
        """Such a value does matter: where it came from; None where it is state, and no fault."""
        leaf = found.index, finite.NAN if found.value == "nan" else finite.INF
        with working, compat.outside_of_traces():
            report = found.located()
        if report is None:
            self._beside.pop(found.index, None)
            self._accepted.add(leaf)
            return None
        self._beside = {}
        self._told.add(leaf)
        self._shared.found = found.call.order
        return replace(report, called_at=_frame(called_at))

    def judge_raised(self, recorder: Recorder, tally: Tally, called_at: sources.Place | None, error: Exception) -> Report | None:
        """The last call of a window has raised: where the bad value came from that made it, if one did.

        Where a whole program is watched, that is asked only if the program ends of the error.
        """
        from nandetect.guarding.raised import may_be_checks

        if not may_be_checks(self._shared.step, error):
            return None
        find = functools.partial(self._raised, recorder.window, recorder.habits, tally, called_at, type(error))
        if self._shared.dies is not None:
            self._shared.dies(error, find)
            return None
        return find()

    def _raised(
        self, window: Window, habits: Habits, tally: Tally, called_at: sources.Place | None, error: type[Exception]
    ) -> Report | None:
        """Where the bad value came from that made the last call of a window raise; None where none did."""
        replayed = self._replayed(window, habits, tally, error=error)
        report = replayed.report
        self._hand(replayed)
        return report and replace(report, called_at=_frame(called_at))

    def _hand(self, replayed: Replayed) -> None:
        for value in replayed.arrived:
            self._shared.hand(value)

    def _replayed(
        self,
        window: Window,
        habits: Habits,
        tally: Tally,
        count_skips: bool = False,
        error: type[Exception] | None = None,
        is_last: bool = True,
    ) -> Replayed:
        """The calls of a window, run again."""
        # Only now: whoever finds nothing does not wait for all that locating needs to be imported.
        from nandetect.guarding.replay import Replay

        began = time.perf_counter()
        with working, compat.outside_of_traces():
            shared, running = self._shared, self._skips.running
            again = Replay(
                shared.step, window, self._accepted, habits, shared.uses, shared.state, running, count_skips, self._idle, error, is_last
            )
            replayed = again.run()
        self._idle = again.idle
        tally.replays += 1
        tally.replaying += time.perf_counter() - began
        if replayed.report is not None:
            number = replayed.report.step
            shared.found = next((call.order for call in window.calls if call.number == number), -1)
        return replayed

    def judge(
        self,
        recorder: Recorder,
        tally: Tally,
        called_at: sources.Place | None,
        count_skips: bool = False,
        error: type[Exception] | None = None,
    ) -> list[Telling]:
        """Run the calls of a window again: what is to be told of it, the first call at fault above all.

        One of them has raised the `error`, where there is one.
        """
        window = recorder.window
        replayed = self._replayed(window, recorder.habits, tally, count_skips, error, is_last=False)
        self._skips.enter(replayed.skipped, replayed.skip, replayed.scales_loss)
        new = [replayed.beside[index] for index in replayed.beside if index not in self._beside]
        if new:
            from nandetect.guarding.aside import note

            if not self._beside:
                self._shared.findings.append(note(new))
            self._beside.update({found.index: found for found in new})
        if replayed.report is None:
            finding = self._skips.finding(window.calls[-1].number + 1)
            return [functools.partial(self._shared.warn, finding)] if finding is not None else []
        # After the first fault most results are likely to be bad: a leaf is told again only after it has been finite in between.
        if error is None:
            self._told |= bad_leaves(window.made)
        self._hand(replayed)
        return [functools.partial(self._shared.tell, replace(replayed.report, called_at=_frame(called_at)))]


def _frame(place: sources.Place | None) -> Frame | None:
    """The user's line that made a call; None where it cannot be told."""
    try:
        return sources.frame_at(place)
    # The line is worth less than the fault.
    except Exception:
        return None
