"""What a derivative rule of the user's own computes, on its own line. Beside `compat` and `effects`, nothing else says `jax._src`.

JAX files all that it makes of an equation under that equation's line, also what it calls a rule of `custom_jvp` or `custom_vjp` for.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType

from jax._src import source_info_util
from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]

from nandetect import compat, ownership, tracebacks
from nandetect.annotations import Pytree

# Whatever calls a compiled function that is watched: that can be traced once more, and then its rules' lines are asked for.
_GUARDING = os.path.join(tracebacks.HERE, "guarding", "")
# Where JAX calls one while it traces: that is not watched.
_passing_on: set[CodeType] = set()


class _Here(threading.local):
    """Of one thread: the frames that went to an equation's line and are there still, and whether every rule's line is asked for."""

    def __init__(self) -> None:
        self.entered: list[FrameType] = []
        self.asked = 0


_here = _Here()
_lock = threading.Lock()
# How many contexts are open, and what undoes what the first of them has set.
_open = 0
_undone = contextlib.ExitStack()


@contextlib.contextmanager
def of_second_trace() -> Iterator[None]:
    """While open, all rules' lines are kept, and nothing that was traced before is reused."""
    with of_what_is_not_jitted(), compat.traced_anew(0x6E64):
        _here.asked += 1
        try:
            yield
        finally:
            _here.asked -= 1


@contextlib.contextmanager
def of_what_is_not_jitted() -> Iterator[None]:
    """While open, rules' lines are kept in code that no compiled function that is watched stands around: it runs but once."""
    global _open
    with _lock:
        _open += 1
        if _open == 1:
            _keep()
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open:
                _undone.close()


def _keep() -> None:
    context = source_info_util.UserContextManager
    enter, leave, current = context.__enter__, context.__exit__, source_info_util.current

    def entering(self: source_info_util.UserContextManager) -> None:
        enter(self)
        _here.entered.append(sys._getframe(1))

    def leaving(self: source_info_util.UserContextManager, exc_type: Pytree, exc_value: Pytree, traceback: Pytree) -> None:
        # One that was entered before is left now.
        if _here.entered:
            _here.entered.pop()
        leave(self, exc_type, exc_value, traceback)

    def current_line() -> source_info_util.SourceInfo:
        if _here.entered and _is_in_rule(sys._getframe(1), _here.entered[-1]):
            return current().replace(traceback=xla_client.Traceback.get_traceback())
        return current()

    def undo() -> None:
        context.__enter__, context.__exit__, source_info_util.current = enter, leave, current

    context.__enter__, context.__exit__, source_info_util.current = entering, leaving, current_line
    _undone.callback(undo)


def _is_in_rule(frame: FrameType | None, entered: FrameType) -> bool:
    """Whether code of the user's was called since JAX went to the equation's line, by what shall keep its own."""
    while frame is not None and frame is not entered:
        if ownership.is_users(frame.f_code.co_filename):
            return bool(_here.asked) or not _is_guarded(entered)
        frame = frame.f_back
    return False


def passes_on(code: CodeType) -> None:
    """Say of code that calls made within it are not watched by the guard that makes them."""
    _passing_on.add(code)


def _is_guarded(frame: FrameType | None) -> bool:
    passes = False
    while frame is not None:
        is_guards = frame.f_code.co_filename.startswith(_GUARDING)
        passes = is_guards and (passes or frame.f_code in _passing_on)
        if is_guards and not passes:
            return True
        frame = frame.f_back
    return False
