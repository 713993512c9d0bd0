"""`guard`: the user's own step, called as it is and watched.

Nothing of the step changes: the same compiled program, the same results, donation and all. Most calls cost no more than the lines of
`guarded` below; whatever is not as quick as that is in `watch`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

from nandetect.errors import NonFiniteError, UsageError
from nandetect.guarding.costs import cost, last_call
from nandetect.guarding.guarded_step import GuardedStep
from nandetect.guarding.shared import OnFind
from nandetect.guarding.watch import Watch
from nandetect.guarding.working import working
from nandetect.program.trace import is_compiled
from nandetect.records import Cost, Finding
from nandetect.speed import recompiled, rules
from nandetect.speed.compilations import Compilations, source, tell_of
from nandetect.tracebacks import hide

Given = ParamSpec("Given")
Returned = TypeVar("Returned", covariant=True)


class Guarded(Protocol[Given, Returned]):
    """What `guard` returns: the step's own signature and attributes, and these."""

    def __call__(self, *args: Given.args, **kwargs: Given.kwargs) -> Returned: ...

    def flush(self) -> None:
        """Look at every call not yet looked at, of this thread and of those that have ended. Raises `NonFiniteError` as the step would."""
        ...

    def cost(self) -> Cost:
        """What watching has cost so far."""
        ...

    def findings(self) -> list[Finding]:
        """What was found so far: faults, steps that were skipped too often, and a step that is compiled again and again."""
        ...


class _ThisThread(threading.local):
    watch: Watch | None = None


def guard(
    step: Callable[Given, Returned], *, check_every: int | None = None, keep: int | None = None, on_find: OnFind = "raise"
) -> Guarded[Given, Returned]:
    """The same function with the same results, which says where the first non-finite value came from that it returned.

    What it returns is looked at every `check_every` calls; without that, as often as costs at most half a percent of the time, and at the
    latest after 500 calls. The first call at fault is named exactly all the same: the calls since the last look are run again from the
    state before them. Kept for that are this one state and what each call was given beside it, `keep` bytes at most (an eighth of the
    memory where it is not given). A function that is not compiled is looked at after every call, since running it again could repeat what
    it does beside its result.

    `on_find` is `"raise"` (`NonFiniteError`, whose `.report.step` is the 0-based number of the call), `"warn"` (`NonFiniteWarning`), or a
    function of the `Report`. Besides the wrapped function's own attributes the result has `.flush()`, which looks at once and is called at
    exit too, `.cost()` and `.findings()`. Each thread's calls are a run of their own. Raises `UsageError` for arguments that mean nothing.
    """
    _check(step, check_every, keep, on_find)
    guarded, shared = watched(step, check_every, keep, on_find)
    _at_exit(shared)
    return guarded


def watched(
    step: Callable[..., Returned],
    check_every: int | None,
    keep: int | None,
    on_find: OnFind,
    order: Iterator[int] | None = None,
    compiled_so_far: Compilations | None = None,
) -> tuple[Guarded[..., Returned], GuardedStep]:
    """The guarded step, and what its threads share. `order` numbers the calls of several functions as they come.

    `compiled_so_far` are the compilations of other functions made of the same source.
    """
    compiled = is_compiled(step)
    compilations = compiled_so_far or Compilations(source(step)[2])
    shared = GuardedStep(step, check_every if compiled else 1, keep, on_find, order or itertools.count(), compiled, compilations)
    this_thread, order = _ThisThread(), shared.order

    # Of a compilation within a call, `_compiled` is told the locals of this function: it reads `shared`, `args` and `kwargs`.
    def guarded(*args: object, **kwargs: object) -> Returned:
        watch = this_thread.watch
        if watch is None:
            watch = this_thread.watch = shared.joined()
            if watch is None:
                return step(*args, **kwargs)
        quick = watch.quick
        # Nandetect's own frames are taken out of what is raised.
        if quick is None or kwargs or len(args) != quick.size or not quick.goes_on(args, quick.made):
            try:
                return watch.call(args, kwargs)
            except BaseException as error:
                hide(error)
                raise
        try:
            out = step(*args)
        except BaseException as error:
            hide(error)
            if isinstance(error, Exception):
                watch.broke(quick, next(order), quick.of_kept(args), error)
            raise
        if quick.is_whole:
            made = (out,)
        elif isinstance(out, tuple) and len(out) == quick.width:
            made = out
        else:
            watch.differs(quick, next(order), quick.of_kept(args), out)
            return out
        quick.made = made
        quick.calls += (next(order), *quick.of_kept(args), *quick.of_small(made))
        quick.left -= 1
        if not quick.left:
            watch.look()
        return out

    tell_of(guarded.__code__, _compiled)
    for name in dir(step):
        if not name.startswith("_"):
            setattr(guarded, name, getattr(step, name))
    functools.update_wrapper(guarded, step, updated=())
    added: Any = guarded
    added.flush, added.cost = functools.partial(_flush, shared), functools.partial(cost, shared)
    added.findings = lambda: [*shared.findings, *recompilations(shared.compilations, cost(shared).calls, last_call(shared))]
    return added, shared


def _check(step: object, check_every: object, keep: object, on_find: object) -> None:
    if not callable(step):
        raise UsageError(f"guard wants a function, not {type(step).__name__}: step = nd.guard(step)")
    if check_every is not None and (not isinstance(check_every, int) or check_every < 1):
        raise UsageError(f"check_every is a number of calls, 1 or more, not {check_every!r}")
    if keep is not None and (not isinstance(keep, int | float) or keep < 0):
        raise UsageError(f"keep is a number of bytes, not {keep!r}")
    if on_find not in ("raise", "warn") and not callable(on_find):
        raise UsageError(f"on_find is 'raise', 'warn' or a function of the report, not {on_find!r}")


def recompilations(compilations: Compilations, calls: int, now: float) -> list[Finding]:
    """The finding that a step is compiled again and again, where it is."""
    price = recompiled.price(compilations, calls, now)
    finding = rules.recompiling(price) if price else None
    return [finding] if finding else []


def _compiled(called: Mapping[str, Any], seconds: float) -> None:
    """A guarded call, whose locals these are, has compiled its step."""
    shared: GuardedStep = called["shared"]
    if shared.may_repeat and not working.now:
        # JAX calls this in the midst of compiling: what an unusual argument raises here must not stop the program.
        with contextlib.suppress(Exception):
            shared.compilations.enter(shared.step, shared.number, called["args"], called["kwargs"], seconds)


def _flush(shared: GuardedStep) -> None:
    """Look at every call not yet looked at, of this thread and of those that have ended. Raises `NonFiniteError` as the step would."""
    shared.flush()
    shared.ask_steered()


def _at_exit(shared: GuardedStep) -> None:
    """Look once more when the program ends; nobody is left to catch what that raises, so it is printed."""
    held = weakref.ref(shared)

    def last_look() -> None:
        kept = held()
        if kept is not None:
            try:
                _flush(kept)
            except NonFiniteError as error:
                sys.stderr.write(f"{error.report}\n")

    atexit.register(last_look)
