"""Every compiled call of a process, guarded: whatever is jitted while this is on, however it is spelled, and what is not jitted at all.

`jax.jit` and its like are replaced in JAX's public namespace, for as long as the context is open; nothing else of any library is touched.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import time
import types
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.experimental.pjit
import numpy as np

from nandetect import compat
from nandetect.errors import NonFiniteError
from nandetect.guarding import costs, guard
from nandetect.guarding.schedule import SHARE
from nandetect.guarding.shared import Shared
from nandetect.guarding.watch import Watch
from nandetect.guarding.working import working
from nandetect.program.trace import is_compiled
from nandetect.records import Cost, Finding, Report
from nandetect.run import unjitted, wrappers
from nandetect.run.eager import Memory
from nandetect.speed import audit, rules
from nandetect.speed.compilations import Compilations, source

# A compiled function is called again at the end where it was called often, and neither a call nor compiling it takes longer, in seconds,
# than this.
_CALLS, _CALLING, _COMPILING = 20, 0.1, 3.0
# For how long it is called, and the operations of a loop that is not jitted are run; and the share of the program's time that this may
# take. Most programs' states could be donated: what that would save is asked where compiling the step twice for it takes no more either.
_SECONDS, _LOOP_SECONDS = 1.0, 0.3
_SHARE = 0.01
# Bytes of a call that may be kept for that.
_KEPT = 2**26

SPELLINGS = ((jax, "jit"), (jax, "pmap"), (jax.experimental.pjit, "pjit"))


class Everywhere:
    """What is watched, what was found in it, and what it cost. `tell` is called with each report; it may raise to stop the program."""

    def __init__(self, tell: Callable[[Report], None], check_every: int | None = None):
        self.memory = Memory(functools.partial(self._found, None), self._look_early)
        # What stands in JAX's namespace for each spelling of jit, by the identity of the original.
        self.stand_ins: dict[int, Any] = {}
        self._guards: weakref.WeakSet[Any] = weakref.WeakSet()
        self._check_every = check_every
        self._tell = tell
        self._order = itertools.count()
        self._shared: weakref.WeakValueDictionary[int, Shared] = weakref.WeakValueDictionary()
        self._looks_again = 0.0
        self._gone = Cost()
        self._gone_functions = 0
        self._findings: list[Finding] = []
        # Of all functions made of one piece of source: jitted anew in a loop, they are many that are compiled once each.
        self._kept: list[tuple[Shared, Watch]] = []
        self._compilations: dict[tuple[str, int, str], Compilations] = {}
        self._lock = threading.RLock()
        self._gathered: list[tuple[bool, int, Report]] | None = None

    def watched(self, function: Callable[..., Any]) -> Any:
        """A compiled function, guarded."""
        place = source(function)
        compilations = self._compilations.setdefault(place, Compilations(place[2]))
        step, shared = guard.watched(function, self._check_every, None, "raise", self._order, compilations)
        # A weak reference: the function that it belongs to is what keeps it.
        shared.on_find = functools.partial(self._found, weakref.ref(shared))
        self._shared[id(shared)] = shared
        self._guards.add(step)
        weakref.finalize(step, self._leave, shared).atexit = False
        return step

    def _look_early(self) -> None:
        """The program has read a NaN that some call returned: look now, unless that was done a moment ago and was no fault."""
        began = time.perf_counter()
        if began >= self._looks_again:
            for shared in self._all():
                guard.flush(shared)
            ended = time.perf_counter()
            self._looks_again = ended + (ended - began) / SHARE

    def flush(self) -> None:
        """Look at everything not looked at yet."""
        for shared in self._all():
            guard.flush(shared)
        self.memory.look()

    def _found(self, where: Callable[[], Shared | None] | None, report: Report) -> None:
        """Something was found. Another function may hold an earlier fault that nobody has looked at yet, so all are looked at first."""
        shared = where() if where else None
        # What arrived in a call was made elsewhere; what is not jitted has mostly taken it from a call.
        entry = (report.origin.primitive == "<input>", shared.found if shared else sys.maxsize, report)
        if self._gathered is not None:
            self._gathered.append(entry)
            return
        self._gathered = [entry]
        try:
            self.flush()
        finally:
            gathered, self._gathered = self._gathered, None
        self._tell(min(gathered, key=lambda entry: entry[:2])[2])

    def forget(self) -> None:
        """Start anew: what was called so far is not looked at."""
        for shared in self._all():
            for watch in shared.watches:
                watch.forget()
        self.memory.forget()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While open, this thread's calls are not watched."""
        self.forget()
        with working:
            yield

    @contextmanager
    def inside(self, namespace: dict[str, Any]) -> Iterator[None]:
        """While open, the compiled functions that a namespace holds are guarded, those from before too; at the end it holds them bare."""
        guards: dict[int, Any] = {}
        stand_ins = {**self.memory.stand_ins, **self.stand_ins}
        for name, value in list(namespace.items()):
            if id(value) in stand_ins:
                namespace[name] = stand_ins[id(value)]
            elif callable(value) and is_compiled(value):
                namespace[name] = guards[id(value)] = guards.get(id(value)) or self.watched(value)
        try:
            yield
        finally:
            ours = set(map(id, stand_ins.values()))
            for name, value in list(namespace.items()):
                if id(value) in ours or (isinstance(value, types.FunctionType) and value in self._guards):
                    namespace[name] = vars(value)["__wrapped__"]

    def findings(self) -> list[Finding]:
        """All that was found, also what is no fault by itself."""
        now, calls = time.perf_counter(), self._calls()
        slow = [finding for one in self._compilations.values() for finding in guard.recompilations(one, calls[id(one)], now)]
        return [*self._findings, *(finding for shared in self._all() for finding in shared.findings), *slow]

    def _calls(self) -> Counter[int]:
        """How often the functions made of one piece of source were called, by the id of their compilations."""
        calls = Counter({id(compilations): compilations.calls for compilations in self._compilations.values()})
        for shared in self._all():
            calls[id(shared.compilations)] += costs.cost(shared).calls
        return calls

    def slow(self, seconds: float) -> list[Finding]:
        """What costs the loop time by the way it is written: a step that is not jitted, a result that is read after every step, and what
        the function that was called most could do without.

        Asked at the end of a program that took so many seconds, since it is measured: where there is something to tell, what the loop does
        is done again, for some tenths of a second.
        """
        calls = self._calls()
        busiest = max(self._compilations.values(), key=lambda one: calls[id(one)], default=None)
        count = calls[id(busiest)]
        read = self.memory.reads.price(busiest.name, count) if busiest else None
        found = [rules.host_transfer(read) if read else None, self._not_jitted(count, seconds)]
        watches = [(shared, watch) for shared in self._all() for watch in shared.watches] + self._kept
        of_busiest = [one for one in watches if one[0].compilations is busiest]
        judged = self._judged(*max(of_busiest, key=lambda one: one[1].tally.calls), seconds) if of_busiest else []
        return [*(finding for finding in found if finding), *judged]

    def _judged(self, shared: Shared, watch: Watch, seconds: float) -> list[Finding]:
        """What a compiled function could do without, seen in its program and measured on the arguments of a call after its last."""
        first = next(iter(shared.compilations.all), None)
        if first is None or watch.tally.calls < _CALLS or first.seconds > _COMPILING or watch.call_seconds > _CALLING:
            return []
        may_ask = 2 * first.seconds + _SECONDS * audit.SHARE <= _SHARE * seconds
        without = ("not-jitted",) if may_ask else ("not-jitted", "not-donated")
        with working, compat.outside_of_traces():
            try:
                args, kwargs = watch.next_call() or ((), {})
                # That a batch comes from the host is as it should be.
                args, kwargs = jax.tree.map(lambda leaf: jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf, (args, kwargs))
                return audit.judge(shared.step, args, kwargs, _SECONDS, without)
            # As below.
            except Exception:
                return []

    def _not_jitted(self, calls: int, seconds: float) -> Finding | None:
        with working, compat.outside_of_traces():
            try:
                with compat.replay_settings(), compat.muted_effects():
                    price = unjitted.price(self.memory.window, calls, min(_LOOP_SECONDS, _SHARE * seconds), 2 * _SHARE * seconds)
            # The operations are the user's: that they cannot be run again is no reason to fail where nothing is wrong.
            except Exception:
                return None
        return rules.not_jitted(price) if price else None

    def cost(self) -> Cost:
        """What watching everything cost; `calls` are those of compiled functions."""
        parts = [self._gone, *map(costs.cost, self._all())]
        return added(parts)

    @property
    def functions(self) -> int:
        """How many compiled functions have been called."""
        return self._gone_functions + sum(bool(shared.watches) for shared in self._all())

    def _all(self) -> list[Shared]:
        with self._lock:
            return list(self._shared.values())

    def _leave(self, shared: Shared) -> None:
        """A guarded function is gone; what it still held is looked at."""
        try:
            for watch in shared.watches:
                watch.look()
        except NonFiniteError:
            pass  # told already, and here there is nobody to catch it
        cost = costs.cost(shared)
        self._gone = added([self._gone, cost])
        shared.compilations.calls += cost.calls
        # Of functions that are gone, the one that was called most is kept with its last call, where that is small.
        watch = max(shared.watches, key=lambda watch: watch.tally.calls, default=None)
        if (
            watch is not None
            and watch.tally.calls > max([0, *(kept.tally.calls for _, kept in self._kept)])
            and watch.next_call_bytes < _KEPT
        ):
            self._kept = [(shared, watch)]
        self._gone_functions += bool(shared.watches)
        self._findings += shared.findings
        # It may live on for a while, in a cycle with its watches, and is not to be counted twice.
        shared.watches, shared.findings = [], []


def added(costs: list[Cost]) -> Cost:
    """Costs of several functions as one; the share of the time is left to who knows the whole time."""
    return Cost(
        calls=sum(cost.calls for cost in costs),
        looks=sum(cost.looks for cost in costs),
        replays=sum(cost.replays for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        replay_seconds=sum(cost.replay_seconds for cost in costs),
        kept_bytes=sum(cost.kept_bytes for cost in costs),
        most_bytes=max(cost.most_bytes for cost in costs),
        bound_bytes=max(cost.bound_bytes for cost in costs),
    )


@contextmanager
def watching(tell: Callable[[Report], None], check_every: int | None = None) -> Iterator[Everywhere]:
    """While open, everything that is jitted is guarded, and what runs outside of any trace is remembered; undone at the end."""
    everywhere = Everywhere(tell, check_every)
    with ExitStack() as undone:
        undone.enter_context(wrappers.remembered(everywhere.memory))
        for module, name in SPELLINGS:
            with warnings.catch_warnings():
                # That a spelling is on its way out is nothing to those who do not use it.
                warnings.simplefilter("ignore", DeprecationWarning)
                original = getattr(module, name)
            everywhere.stand_ins[id(original)] = stand_in = _guarding(original, everywhere)
            setattr(module, name, stand_in)
            undone.callback(setattr, module, name, original)
        yield everywhere


def _guarding(jit: Callable[..., Any], everywhere: Everywhere) -> Callable[..., Any]:
    @functools.wraps(jit)
    def guarding(*function: Any, **options: Any) -> Any:
        made = jit(*function, **options)
        if not function:
            # `@jax.jit(static_argnames=...)`, which gives a decorator.
            return lambda decorated: everywhere.watched(made(decorated))
        return everywhere.watched(made)

    return guarding
