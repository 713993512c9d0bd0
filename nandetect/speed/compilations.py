"""Every compilation of a watched step, with what it was compiled for. JAX tells of each when it ends; between two, this costs nothing."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

import jax
from jax.core import Tracer

from nandetect import compat
from nandetect.annotations import Pytree
from nandetect.program import sources
from nandetect.speed.signature import Change, Signature, changes, distance, signature

_STAGES = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
_COMPILED = "/jax/core/compile/backend_compile_duration"
# How many signatures of one function are kept to compare with; further compilations are only counted.
_KEPT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """One compilation: when it ended, its seconds (tracing, lowering and compiling), and what differed from the nearest one before.

    `new_function` says that another function object of the same source had been compiled for the same arguments already.
    """

    ended: float
    seconds: float
    changed: tuple[Change, ...] = ()
    new_function: bool = False


@dataclass(slots=True)
class Compilations:
    """The compilations of one function of the source, in order; `called_at` is the user's line that called for the last of them.

    `calls` counts the calls of function objects that are gone.
    """

    name: str
    all: list[Compilation] = field(default_factory=list)
    called_at: sources.Place | None = None
    calls: int = 0
    _signatures: list[Signature] = field(default_factory=list)
    _last: int | None = None
    _lock: AbstractContextManager[object] = field(default_factory=threading.Lock)

    def enter(self, step: Callable[..., object], number: int, args: tuple[Pytree, ...], kwargs: dict[str, Pytree], seconds: float) -> None:
        """Enter a compilation for a call with these arguments; `number` tells function objects apart that are made of the same source."""
        now = time.perf_counter()
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return  # a call within the tracing of another, which is compiled as part of that
        new = signature(step, args, kwargs)
        with self._lock:
            nearest = min((changes(old, new) for old in reversed(self._signatures)), key=distance, default=())
            is_new = self._last not in (None, number)
            self._last = number
            if len(self._signatures) < _KEPT and (nearest or not self._signatures):
                self._signatures.append(new)
            new_function = is_new and not nearest
            self.all.append(Compilation(ended=now, seconds=seconds, changed=nearest, new_function=new_function))
            self.called_at = sources.caller()


Tell: TypeAlias = Callable[[Mapping[str, Pytree], float], None]
_frames: dict[types.CodeType, Tell | None] = {}
_pending = threading.local()
_registered: list[bool] = []


def tell_of(code: types.CodeType, tell: Tell | None) -> None:
    """From now on, `tell(locals, seconds)` is called of each compilation within a call of this code (the innermost such code).

    Without a `tell`, what is compiled within it is nobody's.
    """
    if not _registered:
        _registered.append(True)
        jax.monitoring.register_event_duration_secs_listener(_heard)
    _frames[code] = tell


def _heard(event: str, duration_secs: float, **details: object) -> None:
    seconds = duration_secs
    if event in _STAGES:
        # Durations of a stage nest, as inner functions are traced within outer ones: the longest is the whole.
        stages = _pending.__dict__.setdefault("stages", {})
        stages[event] = max(seconds, stages.get(event, 0.0))
    elif event == _COMPILED:
        seconds += sum(_pending.__dict__.pop("stages", {}).values())
        frame, calls = sys._getframe(1), 0
        while frame is not None and frame.f_code not in _frames:
            calls += compat.dispatches(frame.f_code)
            frame = frame.f_back
        tell = _frames.get(frame.f_code) if frame is not None else None
        # What is computed at once while a step is traced, or its arguments are taken apart, is compiled in a call within its call.
        if frame is not None and tell is not None and calls < 2:
            tell(frame.f_locals, seconds)


def source(function: object) -> tuple[str, int, str]:
    """What functions made of the same piece of source have in common: file, line and name."""
    *_, function = _layers(function)
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", type(function).__name__)
    return (code.co_filename, code.co_firstlineno, name) if code is not None else ("", id(function), name)


def made_of(function: object) -> tuple[object, ...]:
    """`source`, with what stands around it: the function that `jax.grad` makes of one is not the one."""
    return source(function), *(getattr(layer, "__code__", None) for layer in _layers(function))


def _layers(function: object) -> Iterator[object]:
    """A function and what it was made of, from one to the next."""
    yield function
    while hasattr(function, "__wrapped__") or hasattr(function, "func"):
        function = getattr(function, "__wrapped__", None) or getattr(function, "func", None)
        yield function
