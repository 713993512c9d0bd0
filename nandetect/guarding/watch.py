"""The calls that one thread makes of a guarded step: each is recorded, some later one is followed by a look at what they returned, and
where that is not finite they are run again.

The quickest calls do not come here: `guard.guarded` records them by itself, once a call here has seen how.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nandetect import compat, jitted
from nandetect.guarding import recorder, unlocated
from nandetect.guarding.faults import Faults, Telling
from nandetect.guarding.quick import QUICK, QuickCalls, calls_like
from nandetect.guarding.recorder import Arguments, Call, Recorder, Window
from nandetect.guarding.schedule import Schedule
from nandetect.guarding.screen import top
from nandetect.guarding.shared import Shared
from nandetect.guarding.steered import Steered
from nandetect.guarding.tally import Tally
from nandetect.guarding.working import working
from nandetect.program import rule_lines, sources
from nandetect.speed.compilations import tell_of

if TYPE_CHECKING:
    from nandetect.guarding.aside import Aside


class Watch:
    """One thread's calls. `quick` are those that are being recorded the quick way, if any are; the others are in `recorder.window`."""

    def __init__(self, shared: Shared):
        self.quick: QuickCalls | None = None
        self.thread = threading.current_thread()
        self.tally = Tally(now := time.perf_counter(), now)
        self.recorder = Recorder(jitted.may_donate(shared.step), shared.bound)
        self.recorder.habits.may_repeat = shared.may_repeat
        self._shared = shared
        self._schedule = Schedule(shared.check_every, now)
        self._faults = Faults(shared)
        self.steered = Steered()
        # The last call that was looked at, and what the last call of all returned.
        self._latest: Call | None = None
        self._out: object = None
        # Whether the first call waits for the next one to be judged.
        self._waits = False
        # The user's line that made the first call of the window.
        self._called_at: sources.Place | None = None

    def call(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """One call, recorded leaf by leaf. What fails in recording it is not the program's."""
        began = time.perf_counter()
        if working.now:
            return self._shared.step(*args, **kwargs)
        quick, leaves = self.quick, None
        try:
            args, kwargs = self._shared.taken(args, kwargs, not self.recorder.window.calls)
            if quick is not None and quick.tree is not None:
                leaves, tree = recorder.flatten((args, kwargs))
                if tree != quick.tree or not quick.goes_on(leaves, quick.made) or recorder.are_traced(leaves):
                    leaves = None
            entered = self._enter(args, kwargs) if leaves is None else None
        except Exception as error:
            self._give_up(error)
            return self._shared.step(*args, **kwargs)
        if quick is not None and leaves is not None:
            return self._call_again(quick, leaves, args, kwargs, began)
        if entered is None:
            return self._pass_on(args, kwargs)
        call, leaves, asking = entered
        began += asking
        started = time.perf_counter()
        try:
            out = self._shared.step(*args, **kwargs)
        except Exception as error:
            # A check of JAX's own (`jax_debug_nans`) or of the program's was faster; what it says is less.
            self._judge_raised(error, lambda: self.recorder.add(call, ()))
            raise
        ended = time.perf_counter()
        try:
            is_due = self._leave(call, leaves, out, args, kwargs, began, ended - started)
        except Exception as error:
            self._give_up(error)
            return out
        if is_due:
            self.look(may_wait=True)
        return out

    def _pass_on(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """A call of JAX's, which traces: what it makes belongs to what stands around it."""
        return self._shared.step(*args, **kwargs)

    def _enter(self, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[Call, list[object], float] | None:
        """Record a call before it is made: its leaves, and the seconds that are no part of what recording takes. None while JAX traces."""
        if self.quick is not None:
            self._end_quick()
        entered = self.recorder.enter(next(self._shared.order), args, kwargs)
        if entered is None:
            return None
        asking = 0.0
        if not self.recorder.window.calls:
            # The first question of whose code a file is reads what is installed.
            asked = time.perf_counter()
            self._called_at = sources.caller()
            asking = time.perf_counter() - asked
            self._schedule.begin(asked)
        return *entered, asking

    def _leave(
        self, call: Call, leaves: list[object], out: object, args: tuple[object, ...], kwargs: dict[str, object], began: float, step: float
    ) -> bool:
        """Record what a call returned, which took so many seconds; whether to look now."""
        if not self.recorder.leave(call, leaves, out, args, kwargs):
            return False
        window = self.recorder.window
        is_first = len(window.calls) == 1
        if is_first:
            self._begin_quick(call, args, kwargs, out)
        self._out = out
        self._count(began, step, is_first)
        is_due = window.size > self._shared.bound or self._waits or self._schedule.is_due(len(window.calls), time.perf_counter())
        return self.quick is None and is_due

    def _give_up(self, error: Exception) -> None:
        """Something of nandetect's own has failed: what was recorded is let go, and it is said that it was not looked at."""
        self.quick = None
        self.recorder.restart()
        self._shared.failed(error)

    def _count(self, began: float, step_seconds: float, is_first: bool) -> None:
        """A call that began then was recorded, the first of a window or not; so many seconds of it were the step's."""
        tally = self.tally
        tally.calls += 1
        tally.last = time.perf_counter()
        seconds = tally.last - began - step_seconds
        if is_first:
            tally.looking += seconds
            self._schedule.started(seconds)
        else:
            tally.recording += seconds

    def _call_again(
        self, quick: QuickCalls, leaves: list[object], args: tuple[object, ...], kwargs: dict[str, object], began: float
    ) -> object:
        """A call that goes on with what the last one made, its arguments put together as before."""
        try:
            kept = self.recorder.keep(quick.links.kept, quick.of_kept(leaves))
        except Exception as error:
            self._give_up(error)
            return self._shared.step(*args, **kwargs)
        order, started = next(self._shared.order), time.perf_counter()
        try:
            out = self._shared.step(*args, **kwargs)
        except Exception as error:
            self.broke(quick, order, kept, error)
            raise
        ended = time.perf_counter()
        try:
            made = recorder.flatten(out)[0]
            if len(made) == quick.width:
                quick.made = made
                quick.calls += (order, *kept, *quick.of_small(made))
                quick.left -= 1
            else:
                self.differs(quick, order, kept, out)
            self._out = out
        except Exception as error:
            self._give_up(error)
            return out
        self.tally.last = time.perf_counter()
        self.tally.recording += self.tally.last - began - (ended - started)
        if not quick.left:
            self.look()
        return out

    def differs(self, quick: QuickCalls, order: int, kept: Sequence[object], out: object) -> None:
        """A call that was to go on with the quick ones returned something of another kind."""
        try:
            self._add_odd(quick, order, kept, recorder.flatten(out)[0])
            self.tally.calls += 1
            self._out = out
        except Exception as error:
            self._give_up(error)

    def broke(self, quick: QuickCalls, order: int, kept: Sequence[object], error: Exception) -> None:
        """A call that was to go on with the quick ones has raised."""
        self._judge_raised(error, lambda: self._add_odd(quick, order, kept, ()))

    def _judge_raised(self, error: Exception, add: Callable[[], None]) -> None:
        """A call has raised, and `add` records it. Raises `NonFiniteError` in its stead where it did because of what that tells."""
        report = None
        try:
            with working, compat.outside_of_traces():
                add()
                report = self._faults.judge_raised(self.recorder, self.tally, self._called_at, error)
        except Exception as failure:
            self._shared.failed(failure)
        self.recorder.restart()
        if report is not None:
            self._shared.tell_raised(report, error)

    def _add_odd(self, quick: QuickCalls, order: int, kept: Sequence[object], made: Sequence[object]) -> None:
        """End the quick calls, and add one that began like them and made something else, or nothing."""
        self._end_quick()
        self.recorder.add(quick.call(order, kept), made)

    def _begin_quick(self, call: Call, args: tuple[object, ...], kwargs: dict[str, object], out: object) -> None:
        """After the first call of a window: record the next ones the quick way, where they are short and all alike."""
        window, seconds = self.recorder.window, self._schedule.call_seconds
        if seconds > QUICK or self._shared.threads > 1 or self._shared.holds or not self.recorder.is_plain:
            return
        # What is known to be bad may stand in one part of the result with what is to be looked at.
        if not self._faults.known:
            calls, room = self._schedule.calls(), self._shared.bound - window.size
            self.quick = calls_like(call, args, kwargs, out, self._out, self.recorder, calls, room)

    def _end_quick(self) -> None:
        """Put the quick calls with the others."""
        quick, self.quick = self.quick, None
        if quick is None or not quick.calls:
            return
        made = recorder.flatten(quick.made)[0]
        for call in quick.recorded():
            self.recorder.add(call, made)
        self.recorder.window.size += quick.bytes * len(quick)
        self.tally.calls += len(quick)
        if quick.tree is None:
            self.tally.quick += len(quick)
            self._out = quick.made[0] if quick.is_whole else quick.made

    def look(self, may_wait: bool = False) -> None:
        """Look at what was made since the last look; where something is not finite, find the first call that made it and tell.

        A first call `may_wait` for the next one, which shows what is handed back.
        """
        # What is read of the program's arrays meanwhile is not its own read: that could begin a look within this one.
        with working:
            told = self._look(may_wait)
        for tell in told:
            tell()

    def _look(self, may_wait: bool) -> list[Telling]:
        """What `look` has to tell. What fails in looking is not the program's."""
        is_bad, window = False, None
        try:
            self._end_quick()
            window = self.recorder.window
            if not window.calls:
                return []
            error = _raised(window)
            if error is not None:
                return self._faults.judge(self.recorder, self.tally, self._called_at, error=error)
            began = time.perf_counter()
            with compat.outside_of_traces():
                is_bad, has_skips = self._faults.signs(self.recorder, self._out)
                ended = time.perf_counter()
                self._waits = may_wait and is_bad and self._faults.may_wait(self.recorder, self._out)
                if self._waits:
                    window = None
                    return []
                self._schedule.looked(began, ended, len(window.calls))
                self.tally.looked(began, ended, window.size)
                told: list[Telling] = []
                if is_bad or has_skips:
                    told = self._faults.judge(self.recorder, self.tally, self._called_at, count_skips=has_skips)
                else:
                    self.steered.see(window, self.recorder.habits, self._out)
                self._latest = window.calls[-1]
                return told
        except Exception as failure:
            self._shared.failed(failure)
            return [functools.partial(self._shared.tell, unlocated.of_window(window, failure))] if is_bad and window is not None else []
        finally:
            if window is not None:
                self.recorder.restart()
                self.recorder.excuse(self._faults.known)

    def forget(self) -> None:
        """Do not look at what was called so far; and what was told of it is told again when it comes again."""
        self._end_quick()
        self.recorder.restart()
        self._faults.forget()
        self.recorder.excuse(frozenset())

    def beside(self, value: object) -> Aside | None:
        """What is known of this bad value, if it was made here and taken for one that stands beside what matters."""
        return self._faults.beside(value, self.recorder)

    def first_beside(self, like: object = None) -> Aside | None:
        """The first value that was so taken, as `Faults.first_beside` has it."""
        return self._faults.first_beside(like)

    def tell_beside(self, found: Aside) -> bool:
        """Such a value does matter. Whether it was told: state that is inf is no fault."""
        report = self._faults.located_beside(found, self._called_at)
        if report is not None:
            self._shared.tell(report)
        return report is not None

    def next_call(self) -> Arguments | None:
        """The arguments of one more call: the state that the last one returned, and what else it was given. None before any look."""
        call, links = self._latest, self.recorder.habits.links
        if call is None:
            return None
        made = top(self._out, call.is_whole) if call.tree is None else recorder.flatten(self._out)[0]
        if call.links is None and links is not None and links.size == len(call.kept):
            call = replace(call, links=links, kept=links.of_kept(call.kept))
        return call.arguments(made)

    @property
    def next_call_bytes(self) -> int:
        """What `next_call` needs."""
        leaves = recorder.flatten((self._out, self._latest.kept if self._latest else ()))[0]
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray))

    @property
    def call_seconds(self) -> float:
        """From call to call, as last seen."""
        return self._schedule.call_seconds


def _raised(window: Window) -> type[Exception] | None:
    """The kind of error that a call of a window has raised and that nobody has waited for yet. Waits for all that was made."""
    try:
        jax.block_until_ready([leaf for leaf in window.made if isinstance(leaf, jax.Array) and not leaf.is_deleted()])
    except Exception as error:
        return type(error)
    return None


# What looking compiles is not the step's.
tell_of(Watch.look.__code__, None)
rule_lines.passes_on(Watch._pass_on.__code__)
