"""A whole program watched: whatever is jitted while this is on, however it is spelled, is guarded, and what is not jitted at all is logged.

`jax.jit` and its like are replaced in JAX's public namespace, for as long as the context is open; nothing else of any library is touched.
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import jax.experimental.pjit

from nandetect import ownership, tracebacks, wording
from nandetect.guarding.schedule import SHARE
from nandetect.guarding.working import working
from nandetect.program.trace import is_compiled
from nandetect.records import Finding, Report
from nandetect.run import children, pricing, steered, wrappers
from nandetect.run.eager import HANDED, EagerWatch
from nandetect.run.functions import Functions
from nandetect.run.unseen import Unseen

SPELLINGS = ((jax, "jit"), (jax, "pmap"), (jax.experimental.pjit, "pjit"))


class Fault(NamedTuple):
    """A fault that was found; the least of several is the first."""

    arrived: bool
    order: int
    report: Report


class Everywhere:
    """The compiled functions that are watched, and the code that is not jitted.

    `tell` is called with each report; it may raise a `NonFiniteError` to stop the program, which nothing else that fails here does.
    `unseen` has what could not be looked at.
    """

    def __init__(self, tell: Callable[[Report], None], check_every: int | None = None):
        self.unseen = Unseen()
        self.functions = Functions(self._found, check_every, self.unseen)
        self.eager = EagerWatch(self._found, self._look_early, self.unseen)
        # What stands in JAX's namespace for each spelling of jit, by the id of the original.
        self.jits: dict[int, Callable[..., object]] = {}
        self._tell = tell
        self._looks_again = 0.0
        # The faults that were found while all functions are looked at, because of the first of them.
        self._gathered: list[Fault] | None = None
        # How many faults were told, and whether the program is known to have used a NaN that a function returned.
        self._told, self._has_used = 0, False

    def _look_early(self, values: Sequence[object]) -> None:
        """A NaN lives that some call returned, and the program has used these: look now, unless that was done a moment ago and was no
        fault."""
        told, self._has_used = self._told, self._has_used or bool(values)
        if any(map(self.functions.use, values)):
            return
        began = time.perf_counter()
        if began >= self._looks_again:
            with working:
                self.functions.flush()
            ended = time.perf_counter()
            self._looks_again = ended + (ended - began) / SHARE
        if values and self._told == told:
            # It came of a result of before, or is a part of one.
            self.functions.use_any()

    def flush(self) -> None:
        """Look at everything not looked at yet."""
        told = self._told
        try:
            with working:
                self.functions.flush()
                if self._has_used and self._told == told:
                    self.functions.use_any()
        except Exception as error:
            self.unseen.failed(error)
        self.eager.look()

    def died(self, error: BaseException) -> None:
        """The program ends of this error. What it held in the frames that raised it is still there to be looked at."""
        try:
            with working:
                self.functions.died(error)
        except Exception as failure:
            self.unseen.failed(failure)
        told = self._told
        self.flush()
        if self._told == told:
            self.eager.died(error)

    def _found(self, report: Report, order: int | None = None) -> None:
        """Something was found. Another function may hold an earlier fault that nobody has looked at yet, so all are looked at first."""
        # What arrived in a call was made elsewhere; what is not jitted has mostly taken it from a call.
        fault = Fault(report.arrived, sys.maxsize if order is None else order, report)
        if self._gathered is not None:
            self._told += 1
            self._gathered.append(fault)
            return
        self._gathered = [fault]
        try:
            # Before all is looked at, since where operations found something, the log of them begins anew.
            made = self.eager.find_given(self.functions.handed)
            self.flush()
            handed = [*self.functions.take_handed(), *self.eager.take_handed()]
            if not made and not self.eager.find_given(handed):
                self.functions.use_first(handed)
        # What is known is told all the same.
        except Exception as error:
            self.unseen.failed(error)
        finally:
            gathered, self._gathered = self._gathered, None
        self._told += 1
        self._tell(min(gathered, key=lambda fault: (fault.arrived, fault.order)).report)

    def forget(self) -> None:
        """Start anew: what was called so far is not looked at."""
        self.functions.forget()
        self.eager.forget()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While open, this thread's calls are not watched."""
        self.forget()
        with working:
            yield

    @contextmanager
    def inside(self, namespace: dict[str, object]) -> Iterator[None]:
        """While open, the compiled functions that a namespace holds are guarded, those from before too; at the end it holds them bare."""
        guards: dict[int, object] = {}
        wrapped = {**self.eager.wrappers, **self.jits}
        for name, value in list(namespace.items()):
            if id(value) in wrapped:
                namespace[name] = wrapped[id(value)]
            elif callable(value) and is_compiled(value):
                namespace[name] = guards[id(value)] = guards.get(id(value)) or self.functions.guarded(value)
        try:
            yield
        finally:
            ours = set(map(id, wrapped.values()))
            for name, value in list(namespace.items()):
                if id(value) in ours or self.functions.is_guarded(value):
                    namespace[name] = vars(value)["__wrapped__"]

    def slow(self, seconds: float) -> list[Finding]:
        """What costs the program's loop time by the way it is written, asked at the end of a program that took so many seconds."""
        try:
            return pricing.slow(self.functions, self.eager, seconds)
        # What could be faster is no part of what was asked.
        except Exception:
            return []

    def steered(self, seconds: float) -> list[Finding]:
        """What a NaN steered though nothing that was seen is non-finite, asked at the end of a program that took so many seconds."""
        return steered.steered(self.functions, self.eager.log, seconds)

    def left_out(self) -> list[str]:
        """What was not looked at, in phrases; asked when all else is over."""
        running = self.functions.running
        if self._told:
            self.unseen.forget(*HANDED)
        return [*self.unseen.phrases(), *([f"the last calls of {wording.counted(running, 'thread')} that still ran"] if running else [])]


@contextmanager
def watching(tell: Callable[[Report], None], check_every: int | None = None) -> Iterator[Everywhere]:
    """While open, everything that is jitted is guarded, and what runs outside of any trace is logged; undone at the end."""
    everywhere = Everywhere(tell, check_every)
    with ExitStack() as undone:
        undone.enter_context(children.counted(functools.partial(everywhere.unseen.add, "child process")))
        undone.enter_context(wrappers.logged(everywhere.eager))
        for module, name in SPELLINGS:
            with warnings.catch_warnings():
                # That a spelling is on its way out is nothing to those who do not use it.
                warnings.simplefilter("ignore", DeprecationWarning)
                original = getattr(module, name)
            everywhere.jits[id(original)] = wrapper = _guarding(original, everywhere.functions)
            setattr(module, name, wrapper)
            undone.callback(setattr, module, name, original)
        yield everywhere


def _guarding(jit: Callable[..., Any], functions: Functions) -> Callable[..., object]:
    @functools.wraps(jit)
    def guarding(*function: Callable[..., object], **options: object) -> object:
        try:
            made = jit(*function, **options)
            # What is looked for is looked for by compiled functions too.
            if working.now:
                return made
            is_users = ownership.is_users(sys._getframe(1).f_code.co_filename)
            if not function:
                # `@jax.jit(static_argnames=...)`, which gives a decorator.
                return lambda decorated: functions.guarded(made(decorated), is_users)
            return functions.guarded(made, is_users)
        except BaseException as error:
            tracebacks.hide(error)
            raise

    return guarding
