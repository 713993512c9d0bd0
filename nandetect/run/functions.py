"""The compiled functions of a program, each guarded: those that are there, and what is still known of those that are gone."""

from __future__ import annotations

import functools
import itertools
import threading
import time
import types
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from nandetect import jitted
from nandetect.errors import NonFiniteError, said
from nandetect.guarding import costs, guard
from nandetect.guarding.guard import Guarded
from nandetect.guarding.guarded_step import GuardedStep
from nandetect.guarding.roles import Values
from nandetect.guarding.steered import Steered
from nandetect.guarding.watch import Watch
from nandetect.guarding.working import working
from nandetect.records import Cost, Finding, Report
from nandetect.run.unseen import Unseen
from nandetect.speed.compilations import Compilations, made_of, source

if TYPE_CHECKING:
    from nandetect.guarding.aside import Aside

# The most bytes of a call that are kept when its function is gone.
_KEPT = 2**26
# Nobody can tell whether it was meant to be seen.
PLACEHOLDER = "array", "that left the program with NaN written where no result is yet"
# The most functions that are gone and that are kept to be asked of.
_ASKED = 8

Returned = TypeVar("Returned")


class Functions:
    """All functions that are guarded. `on_find` is called with each fault, and with the number of the call at fault where that is known.

    `unseen` is told of what could not be looked at.
    """

    def __init__(self, on_find: Callable[[Report, int | None], None], check_every: int | None, unseen: Unseen):
        # What a call has raised last, which is not kept alive, and how to find out whether it did because of a bad value.
        self._raised: tuple[int, type[BaseException], Callable[[], Report | None]] | None = None
        self._on_find, self._check_every, self._unseen = on_find, check_every, unseen
        # The calls of all functions are numbered in the order in which they come.
        self._order = itertools.count()
        # What the program did with values that are not finite; and those that came into a call, until it is known where they are from.
        self._uses = Values()
        # What is read before it is known to be state, when that is known.
        self._state = Values(lambda value: self._unseen.add(*PLACEHOLDER) if value in self._uses else None)
        self.handed: list[object] = []
        self._guards: weakref.WeakSet[Callable[..., object]] = weakref.WeakSet()
        self._shared: weakref.WeakValueDictionary[int, GuardedStep] = weakref.WeakValueDictionary()
        self._lock = threading.RLock()
        # Of all functions made of one piece of source: jitted anew in a loop, they are many that are compiled once each.
        self._compilations: dict[tuple[object, ...], Compilations] = {}
        # Of functions that are gone: their cost, how many were called, what was found in them, and the one that was called most.
        self._gone = Cost()
        self._gone_called = 0
        self._gone_to_be_asked: list[tuple[GuardedStep, Steered]] = []
        self._gone_findings: list[Finding] = []
        self._busiest_gone: tuple[GuardedStep, Watch] | None = None

    def guarded(self, function: Callable[..., Returned], is_users: bool = True) -> Guarded[..., Returned]:
        """A compiled function, guarded; itself where that fails. One that is not the user's was jitted by a library, for its own use."""
        try:
            if not is_users:
                jitted.by_a_library(function)
            return self._guarded(function)
        except Exception as error:
            self._unseen.failed(error, "compiled function")
            return function  # pyright: ignore[reportReturnType]

    def _guarded(self, function: Callable[..., Returned]) -> Guarded[..., Returned]:
        compilations = self._compilations.setdefault(made_of(function), Compilations(source(function)[2]))
        step, shared = guard.watched(function, self._check_every, None, "raise", self._order, compilations)
        # A weak reference: the function that it belongs to is what keeps it.
        shared.on_find = functools.partial(self._found, weakref.ref(shared))
        shared.uses, shared.state, shared.hand, shared.warns = self._uses, self._state, self._hand, False
        shared.dies, shared.unseen = self._note_raised, self._unseen.failed
        self._shared[id(shared)] = shared
        self._guards.add(step)
        weakref.finalize(step, self._leave, shared).atexit = False
        return step

    def _found(self, where: Callable[[], GuardedStep | None], report: Report) -> None:
        shared = where()
        self._on_find(report, shared.found if shared else None)

    def is_guarded(self, value: object) -> bool:
        """Whether this is a function that `guarded` gave."""
        return isinstance(value, types.FunctionType) and value in self._guards

    def alive(self) -> list[GuardedStep]:
        """The functions that are there."""
        with self._lock:
            return list(self._shared.values())

    def flush(self) -> None:
        """Look at every call not looked at yet."""
        for shared in self.alive():
            try:
                shared.flush()
            except Exception as error:
                self._unseen.failed(error)

    def use(self, value: object) -> bool:
        """The program uses this value, which is not finite, so it matters. Whether it was taken for one that does not, and is told now."""
        if value in self._state and value not in self._uses:
            self._unseen.add(*PLACEHOLDER)
        self._uses.enter(value)
        return self._tell_first(lambda watch: watch.beside(value))

    def use_any(self, like: object = None) -> bool:
        """The same for a value that is not known: it came of the first that was taken for one that does not matter."""
        told = self._tell_first(lambda watch: watch.first_beside(like))
        # Or of what is state, of which it may be a part.
        if not told and self._state and not self._unseen.has(*PLACEHOLDER):
            self._unseen.add(*PLACEHOLDER)
        return told

    def _tell_first(self, of: Callable[[Watch], Aside | None]) -> bool:
        known = [(found, watch) for shared in self.alive() for watch in shared.watches if (found := of(watch)) is not None]
        return any(watch.tell_beside(found) for found, watch in sorted(known, key=lambda entry: entry[0].call.order))

    def died(self, error: BaseException | None) -> None:
        """The program has ended of an error: if a call raised it because of a bad value, that is told."""
        chain: list[BaseException] = []
        while error is not None and error not in chain:
            chain.append(error)
            error = error.__cause__ or error.__context__
        if self._raised is not None and any((id(link), type(link)) == self._raised[:2] for link in chain):
            report = self._raised[2]()
            self._unseen.add(*_raising(self._raised[1]), count=-1)
            if report is not None:
                self._on_find(report, -1)

    def _note_raised(self, error: Exception, find: Callable[[], Report | None]) -> None:
        # Looked into where the program ends of it, and not where it goes on.
        self._unseen.add(*_raising(type(error)))
        self._raised = id(error), type(error), find

    def _hand(self, value: object) -> None:
        self._uses.enter(value)
        self.handed.append(value)

    def take_handed(self) -> list[object]:
        """What came into calls that were found at fault, which is no longer kept then."""
        handed, self.handed = self.handed, []
        return handed

    def use_first(self, values: Sequence[object]) -> None:
        """Use the first of these that was taken for one that does not matter."""
        for value in values:
            if self.use(value) or self.use_any(value):
                return

    def forget(self) -> None:
        """Do not look at what was called so far."""
        for shared in self.alive():
            for watch in shared.watches:
                watch.forget()

    def _leave(self, shared: GuardedStep) -> None:
        """A function is gone; what it still held is looked at."""
        try:
            with working:
                self._last_look(shared)
                self._count(shared)
        # Here there is nobody to catch it.
        except Exception as error:
            self._unseen.add("look", f"that failed ({said(error)})")

    def _last_look(self, shared: GuardedStep) -> None:
        try:
            for watch in shared.watches:
                watch.look()
        except NonFiniteError:
            pass  # told already

    def _count(self, shared: GuardedStep) -> None:
        """Enter what a function that is gone has cost, and what was found in it."""
        cost = costs.cost(shared)
        self._gone = costs.added([self._gone, cost])
        shared.compilations.calls += cost.calls
        watch = max(shared.watches, key=_calls, default=None)
        most = _calls(self._busiest_gone[1]) if self._busiest_gone else 0
        if watch is not None and _calls(watch) > most and watch.next_call_bytes < _KEPT:
            self._busiest_gone = shared, watch
        self._gone_to_be_asked += [(shared, other.steered) for other in shared.watches if other.steered]
        del self._gone_to_be_asked[:-_ASKED]
        self._gone_called += bool(shared.watches)
        self._gone_findings += shared.findings
        # It may live on for a while, in a cycle with its watches, and is not to be counted twice.
        shared.watches, shared.findings = [], []

    def to_be_asked(self) -> list[tuple[GuardedStep, Steered]]:
        """The functions with calls of which it is still to be asked whether a NaN steered them."""
        alive = [(shared, watch.steered) for shared in self.alive() for watch in shared.watches if watch.steered]
        return [*alive, *self._gone_to_be_asked]

    def findings(self) -> list[Finding]:
        """All that was found, also what is no fault by itself."""
        now, calls = time.perf_counter(), self._calls()
        findings = [*self._gone_findings, *(finding for shared in self.alive() for finding in shared.findings)]
        for compilations in self._compilations.values():
            findings += guard.recompilations(compilations, calls[id(compilations)], now)
        return findings

    def _calls(self) -> Counter[int]:
        """How often the functions made of one piece of source were called, by the id of their compilations."""
        calls = Counter({id(compilations): compilations.calls for compilations in self._compilations.values()})
        for shared in self.alive():
            calls[id(shared.compilations)] += costs.cost(shared).calls
        return calls

    def busiest(self) -> tuple[Compilations | None, int]:
        """The piece of source whose functions were called most, with how often; none where nothing was called or compiled."""
        calls = self._calls()
        busiest = max(self._compilations.values(), key=lambda compilations: calls[id(compilations)], default=None)
        return busiest, calls[id(busiest)]

    def busiest_of(self, compilations: Compilations | None) -> tuple[GuardedStep, Watch] | None:
        """The one function made of this source that was called most, with the calls of the thread that called it most."""
        watches = [(shared, watch) for shared in self.alive() for watch in shared.watches]
        watches += [self._busiest_gone] if self._busiest_gone else []
        watches = [(shared, watch) for shared, watch in watches if shared.compilations is compilations]
        return max(watches, key=lambda entry: _calls(entry[1]), default=None)

    def cost(self) -> Cost:
        """What watching all of them cost; the share of the time is left to who knows the whole time."""
        return costs.added([self._gone, *map(costs.cost, self.alive())])

    @property
    def running(self) -> int:
        """How many other threads still run whose last calls nobody may look at."""
        watches = [watch for shared in self.alive() for watch in shared.watches]
        threads = {watch.thread for watch in watches if watch.quick is not None or watch.recorder.window.calls}
        return sum(thread.is_alive() for thread in threads - {threading.current_thread()})

    @property
    def called(self) -> int:
        """How many of them have been called."""
        return self._gone_called + sum(bool(shared.watches) for shared in self.alive())


def _calls(watch: Watch) -> int:
    return watch.tally.calls


def _raising(error: type[BaseException]) -> tuple[str, str]:
    return "call", f"that raised {error.__name__}"
