"""Every compiled call of a process, guarded: whatever is jitted while this is on, however it is spelled, and what is not jitted at all.

`jax.jit` and its like are replaced in JAX's public namespace, for as long as the context is open; nothing else of any library is touched.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.experimental.pjit

from nandetect import eager, guarded
from nandetect.errors import NonFiniteError
from nandetect.records import Cost, Finding, Report
from nandetect.watch import Shared

SPELLINGS = ((jax, "jit"), (jax, "pmap"), (jax.experimental.pjit, "pjit"))


class Everywhere:
    """What is watched, what was found in it, and what it cost. `tell` is called with each report; it may raise to stop the program."""

    def __init__(self, tell: Callable[[Report], None]):
        self.memory = eager.Memory(tell)
        self._tell = tell
        self._shared: weakref.WeakValueDictionary[int, Shared] = weakref.WeakValueDictionary()
        self._gone = Cost()
        self._findings: list[Finding] = []
        self._lock = threading.RLock()

    def watched(self, function: Callable[..., Any]) -> Any:
        """A compiled function, guarded."""
        step, shared = guarded.watched(function, None, None, self._tell)
        self._shared[id(shared)] = shared
        weakref.finalize(step, self._leave, shared).atexit = False
        return step

    def flush(self) -> None:
        """Look at everything not looked at yet."""
        for shared in self._all():
            guarded.flush(shared)
        self.memory.look()

    def forget(self) -> None:
        """Start anew: what was called so far is not looked at."""
        for shared in self._all():
            for watch in shared.watches:
                watch.forget()
        self.memory.forget()

    def findings(self) -> list[Finding]:
        """All that was found, also what is no fault by itself."""
        return [*self._findings, *(finding for shared in self._all() for finding in shared.findings)]

    def cost(self) -> Cost:
        """What watching everything cost; `calls` are those of compiled functions."""
        parts = [self._gone, *map(guarded.cost, self._all())]
        return added(parts)

    @property
    def functions(self) -> int:
        """How many compiled functions have been called."""
        return sum(bool(shared.watches) for shared in self._all())

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
        self._gone = added([self._gone, guarded.cost(shared)])
        self._findings += shared.findings


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
def watching(tell: Callable[[Report], None]) -> Iterator[Everywhere]:
    """While open, everything that is jitted is guarded, and what runs outside of any trace is remembered; undone at the end."""
    everywhere = Everywhere(tell)
    with ExitStack() as undone:
        undone.enter_context(eager.remembered(everywhere.memory))
        for module, name in SPELLINGS:
            original = getattr(module, name)
            setattr(module, name, _guarding(original, everywhere))
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
