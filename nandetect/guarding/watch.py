"""The calls that one thread makes of a guarded step: recorded, looked at now and then, replayed where something is not finite."""

from __future__ import annotations

import functools
import itertools
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import numpy as np

from nandetect import compat, findings
from nandetect.errors import NonFiniteError, NonFiniteWarning
from nandetect.guarding import budget, recorder
from nandetect.guarding.recorder import Call, Links, Recorder
from nandetect.guarding.screen import Accepted, bad_metrics, bad_places, top
from nandetect.guarding.skips import Skips
from nandetect.program import sources
from nandetect.records import Finding, Report
from nandetect.speed.compilations import Compilations, tell_of

OnFind = Literal["raise", "warn"] | Callable[[Report], object]

# Looking, and copying what the step takes, may take this share of the time.
SHARE = 0.005
# The most calls between two looks.
LONGEST = 500
# Calls that take less than this, in seconds, are recorded by their positional arguments and not by every leaf of them.
_QUICK = 3e-3
_TRIES = 500


class _Working(threading.local):
    """Whether this thread is busy finding a fault, and within how many contexts: what it then runs is not the program's."""

    now = 0

    def __enter__(self) -> None:
        self.now += 1

    def __exit__(self, *error: object) -> None:
        self.now -= 1


working = _Working()


@dataclass
class Shared:
    """What the threads that call one guarded step have in common."""

    step: Callable[..., Any]
    check_every: int | None
    keep: int | None
    on_find: OnFind
    order: Iterator[int]
    may_repeat: bool
    # Of all that is made of the same source, where a whole program is watched.
    compilations: Compilations
    number: int = field(default_factory=itertools.count().__next__)
    # The order of the call that was last found at fault.
    found: int = -1
    findings: list[Finding] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    # Of threads that have ended.
    past: list[Tally] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    @functools.cached_property
    def bound(self) -> int:
        """The most bytes to keep. Asked for when the step is first called: before that, JAX may not have been set up."""
        return budget.bound() if self.keep is None else self.keep


@dataclass(slots=True)
class Tally:
    """What watching took, in seconds. Quick calls are counted and not timed: see `quick_seconds`."""

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


class Quick:
    """A run of calls of one kind: what each was given beside its state, and its metrics.

    The parts are those of `Call`: leaves where there is a `tree`. All calls are in one list: whatever is kept, Python's garbage collector
    goes through again and again.
    """

    __slots__ = ("bytes", "calls", "goes_on", "is_whole", "left", "links", "made", "of_kept", "of_small", "size", "stride", "tree", "width")

    def __init__(
        self, links: Links, small: Sequence[int], made: Sequence[Any], left: int, bytes: int = 0, is_whole: bool = False, tree: Any = None
    ):
        self.links, self.goes_on, self.of_kept = links, links.matcher(), links.of_kept
        # How many positional arguments such a call has; those that are taken leaf by leaf go another way.
        self.size = links.size if tree is None else -1
        self.of_small, self.made, self.is_whole, self.left, self.bytes = recorder.picker(small), made, is_whole, left, bytes
        self.stride, self.tree, self.width = 1 + len(links.kept) + len(small), tree, len(made)
        self.calls: list[Any] = []

    def __len__(self) -> int:
        return len(self.calls) // self.stride

    def recorded(self) -> Iterator[Call]:
        """The calls as the others are, not yet numbered."""
        beside = 1 + len(self.links.kept)
        for at in range(0, len(self.calls), self.stride):
            order, *kept = self.calls[at : at + beside]
            small = self.calls[at + beside : at + self.stride]
            yield Call(-1, order, self.tree, kept, self.links, small, self.of_small, self.is_whole)


@functools.cache
def quick_seconds() -> float:
    """What recording one quick call takes, measured where it is first asked for; to time each would cost more than that."""
    parts = tuple(object() for _ in range(4))
    linked = recorder.links(parts, parts[:2], lambda part: True)
    quick = Quick(linked, [1], parts[:2], _TRIES)
    began = time.perf_counter()
    for number in range(_TRIES):
        if quick.goes_on(parts, quick.made):
            quick.made = made = parts[:2]
            quick.calls += (number, *quick.of_kept(parts), *quick.of_small(made))
            quick.left -= 1
    return (time.perf_counter() - began) / _TRIES


class Watch:
    """One thread's calls."""

    def __init__(self, shared: Shared):
        self.quick: Quick | None = None
        self.thread = threading.current_thread()
        self.tally = Tally(now := time.perf_counter(), now)
        self.recorder = Recorder(compat.may_donate(shared.step), shared.bound)
        self.recorder.habits.may_repeat = shared.may_repeat
        self._shared = shared
        # What was found to be no fault, and what was told already.
        self._accepted: Accepted = set()
        self._told: Accepted = set()
        self._skips = Skips()
        # The last call that was looked at; what it returned is `_out`.
        self._latest: Call | None = None
        # When the last look was, how long it took with keeping the state after it, and the time from call to call, as last seen.
        self._looked, self._look_seconds, self._call_seconds = now, 0.0, 1.0
        self._start_seconds = 0.0
        self._out: Any = None
        self._began = now
        self._called_at: sources.Place | None = None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call, recorded leaf by leaf."""
        began = time.perf_counter()
        if working.now:
            return self._shared.step(*args, **kwargs)
        quick = self.quick
        if quick is not None and quick.tree is not None:
            leaves, tree = recorder.flatten((args, kwargs))
            if tree == quick.tree and quick.goes_on(leaves, quick.made) and not recorder.are_traced(leaves):
                return self._call_again(quick, leaves, args, kwargs, began)
        self._slow_down()
        entered = self.recorder.enter(next(self._shared.order), args, kwargs)
        if entered is None:
            return self._shared.step(*args, **kwargs)
        call, leaves = entered
        if not self.recorder.window.calls:
            self._called_at = sources.caller()
            self._began = began
        started = time.perf_counter()
        try:
            out = self._shared.step(*args, **kwargs)
        except FloatingPointError:
            # JAX's own check (`jax_debug_nans`) was faster; what it says is less.
            self.recorder.add(call, ())
            self._replay()
            raise
        ended = time.perf_counter()
        if self.recorder.leave(call, leaves, out, args, kwargs):
            self._hurry_up(call, args, kwargs, out)
            self._out = out
            tally = self.tally
            tally.calls += 1
            tally.last = time.perf_counter()
            seconds = tally.last - began - (ended - started)
            # The first of a window holds what the step takes, so it belongs to the look.
            if len(self.recorder.window.calls) == 1:
                tally.looking += seconds
                self._start_seconds = seconds
            else:
                tally.recording += seconds
            if self.quick is None and self._is_due(ended):
                self.look()
        return out

    def _call_again(self, quick: Quick, leaves: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any], began: float) -> Any:
        """A call that goes on with what the last one made, its arguments put together as before."""
        kept = self.recorder.keep(quick.links.kept, quick.of_kept(leaves))
        order, started = next(self._shared.order), time.perf_counter()
        try:
            out = self._shared.step(*args, **kwargs)
        except FloatingPointError:
            self._slow_down()
            self.recorder.add(Call(-1, order, quick.tree, kept, quick.links), ())
            self._replay()
            raise
        ended = time.perf_counter()
        made = recorder.flatten(out)[0]
        if len(made) == quick.width:
            quick.made = made
            quick.calls += (order, *kept, *quick.of_small(made))
            quick.left -= 1
        else:
            self.differs(quick, order, kept, out)
        self._out = out
        self.tally.last = time.perf_counter()
        self.tally.recording += self.tally.last - began - (ended - started)
        if not quick.left:
            self.look()
        return out

    def differs(self, quick: Quick, order: int, kept: Sequence[Any], out: Any) -> None:
        """A call of a run returned something of another kind than those before it."""
        self._slow_down()
        self.recorder.add(Call(-1, order, quick.tree, kept, quick.links, is_whole=quick.is_whole), recorder.flatten(out)[0])
        self.tally.calls += 1
        self._out = out

    def broke(self, args: tuple[Any, ...]) -> None:
        """JAX's own check stopped a quick call."""
        quick = self.quick
        assert quick is not None
        self._slow_down()
        self.recorder.add(Call(-1, next(self._shared.order), None, quick.of_kept(args), quick.links, is_whole=quick.is_whole), ())
        self._replay()

    def forget(self) -> None:
        """Do not look at what was called so far; and what was told of it is told again when it comes again."""
        self._slow_down()
        self.recorder.restart()
        self._accepted, self._told = set(), set()
        self.recorder.excuse(frozenset())

    def next_call(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments of one more call: the state that the last one returned, and what else it was given. None before any look."""
        call, links = self._latest, self.recorder.habits.links
        if call is None:
            return None
        made = top(self._out, call.is_whole) if call.tree is None else recorder.flatten(self._out)[0]
        if call.links is None and links is not None and links.size == len(call.kept):
            call = replace(call, links=links, kept=links.of_kept(call.kept))
        return call.arguments(made)

    @property
    def last_bytes(self) -> int:
        """What `next_call` needs."""
        leaves = recorder.flatten((self._out, self._latest.kept if self._latest else ()))[0]
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray))

    @property
    def call_seconds(self) -> float:
        """From call to call, as last seen."""
        return self._call_seconds

    def look(self) -> None:
        """Look at what was made since the last look; where something is not finite, find the first call that made it and tell."""
        self._slow_down()
        window = self.recorder.window
        if not window.calls:
            return
        jax.block_until_ready([leaf for leaf in window.made if isinstance(leaf, jax.Array) and not leaf.is_deleted()])
        began = time.perf_counter()
        with compat.outside_of_traces():
            places = bad_places(window.made)
            bad = bool(places - self._accepted - self._told) or bad_metrics([call.small for call in window.calls])
            suspicious = self._skips.suspects(self._out, window.made, self.recorder.habits)
        self._call_seconds = (began - self._began) / len(window.calls)
        self._looked = self.tally.last = time.perf_counter()
        self._look_seconds = self._looked - began + self._start_seconds
        self.tally.looking += self._looked - began
        self.tally.looks += 1
        self.tally.most = max(self.tally.most, window.size)
        # What is sound again is told when it breaks again.
        self._told &= places
        try:
            if bad or suspicious:
                self._replay(count_skips=suspicious)
        finally:
            self._latest = window.calls[-1]
            self.recorder.restart()
            self.recorder.excuse(frozenset(at for at, _ in self._accepted | self._told))

    def _replay(self, count_skips: bool = False) -> None:
        # Only now: whoever finds nothing does not wait for all that locating needs to be imported.
        from nandetect.guarding.replay import rewind

        began = time.perf_counter()
        with working, compat.outside_of_traces():
            found = rewind(self._shared.step, self.recorder.window, self._accepted, self.recorder.habits, count_skips)
        self.tally.replays += 1
        self.tally.replaying += time.perf_counter() - began
        self._skips.enter(found.skipped, found.skip)
        finding = self._skips.finding(self.recorder.window.calls[-1].number + 1)
        if finding is not None:
            self._shared.findings.append(finding)
            warnings.warn(finding.message, NonFiniteWarning, stacklevel=6)
        if found.report is not None:
            # From here on everything is likely to be bad: it is told once, and again when it has been sound in between.
            self._told |= bad_places(self.recorder.window.made)
            self._shared.found = next((call.order for call in self.recorder.window.calls if call.number == found.report.step), -1)
            self.recorder.restart()
            tell(self._shared, replace(found.report, called_at=sources.frame_at(self._called_at)))

    def _is_due(self, now: float) -> bool:
        """Whether it is time to look: after so many calls as asked, else when a look is cheap beside the calls since the last one."""
        window = self.recorder.window
        if window.size > self._shared.bound:
            return True
        if self._shared.check_every is not None:
            return len(window.calls) >= self._shared.check_every
        return len(window.calls) >= LONGEST or now - self._looked >= self._look_seconds / SHARE

    def _hurry_up(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """After the first call of a window: record the next ones the quick way, where they are short and all alike."""
        before, window = self._out, self.recorder.window
        if len(window.calls) != 1 or self._call_seconds > _QUICK or len(self._shared.watches) > 1 or not self.recorder.is_plain:
            return
        if self._accepted | self._told:
            return  # a part may hold what is to be looked at beside what is not
        # A state that is a tuple by itself (a NamedTuple) goes round as one, and the tuple that a step returns in its parts.
        is_whole, tree = any(arg is before for arg in args) or not isinstance(out, tuple), None
        given, parts = args, top(out, is_whole)
        links = recorder.links(args, top(before, is_whole), lambda part: not isinstance(part, bool | int | float | str | None))
        if kwargs or not links.ins or not all(isinstance(part, jax.Array | float | int) for part in links.of_kept(args)):
            # Taken apart and put together anew (a dictionary of the batch, or a state that the step's jit flattens): leaf by leaf.
            held = self.recorder.habits.links
            if held is None or not held.ins:
                return
            given, parts, links, is_whole, tree = call.kept, window.made, held, False, call.tree
        small = [at for at, part in enumerate(parts) if at not in links.outs and _is_metric(part)]
        calls = self._shared.check_every or min(int(self._look_seconds / SHARE / self._call_seconds), LONGEST)
        size = sum(part.nbytes for part in links.of_kept(given) if isinstance(part, jax.Array | np.ndarray))
        calls = min(calls, int((self._shared.bound - window.size) / max(size, 1)))
        if calls > 2:
            self.quick = Quick(links, small, parts, calls - 1, size, is_whole, tree)

    def _slow_down(self) -> None:
        """Put a run of quick calls with the others."""
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


# What looking compiles is not the step's.
tell_of(Watch.look.__code__, None)


def _is_metric(part: Any) -> bool:
    return all(map(recorder.is_small, recorder.flatten(part)[0]))


def tell(shared: Shared, report: Report) -> None:
    """What was found, told the way that was asked for. Raises `NonFiniteError` where that is to raise."""
    shared.findings.append(findings.non_finite(report))
    if shared.on_find == "raise":
        raise NonFiniteError(report)
    if shared.on_find == "warn":
        warnings.warn(f"\n{report}", NonFiniteWarning, stacklevel=5)
    else:
        shared.on_find(report)
