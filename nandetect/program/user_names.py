"""What the user calls the arguments and results of a step that a library jitted, around the user's function.

Between the two the library takes pytrees apart in its own way: what JAX traced is then called `dynamic['rest'][1]`. The user's names are
measured: the step is traced once more, and the values that it was given are looked for among those that the user's own function is called
with, and the values that it gives among those that that function returns.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import CodeType, FrameType
from typing import Any

import jax
from jax.core import Tracer

from nandetect import ownership
from nandetect.annotations import Pytree
from nandetect.program.trace import Program, keystr

# How deep objects that are no pytrees are looked into.
DEEPEST = 6


def named(program: Program) -> Program:
    """A program with the user's names, where a library's function stands between it and the user's; itself where none are found."""
    if program.retrace is None or not program.is_wrapped:
        return program
    # Names are a nicety: whatever the user's program does when it is traced once more, a report is told with those that JAX has.
    try:
        seen = _Seen()
        program.retrace(seen.watch)
        return seen.named(program)
    except Exception:
        return program


@dataclass
class _Call:
    """One call of the user's: its arguments and what it returned, by name, as traced values."""

    frame: FrameType | None
    arguments: list[tuple[str, object]]
    results: list[tuple[str, object]] = field(default_factory=list)


@dataclass
class _Seen:
    """The outermost calls of the user's functions while a step was traced, the values that it was given, and those that it gave."""

    given: list[object] = field(default_factory=list)
    gave: list[tuple[str, object]] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)

    def watch(self, function: Callable[..., Pytree], args: Sequence[Pytree], kwargs: dict[str, Pytree]) -> Pytree:
        """Call a function and note the user's."""
        self.given = [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, Tracer)]
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            returned = function(*args, **kwargs)
        finally:
            sys.setprofile(before)
        self.gave = [(keystr(path) or "result", leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(returned)[0]]
        return returned

    def _note(self, frame: FrameType, event: str, returned: Any) -> None:
        # Whatever runs meanwhile is seen, a finalizer of another's too, and what it is given may be anything.
        with suppress(Exception):
            self._enter(frame, event, returned)

    def _enter(self, frame: FrameType, event: str, returned: Any) -> None:
        if event == "call" and (not self.calls or self.calls[-1].frame is None) and _is_users(frame.f_code):
            self.calls.append(_Call(frame, _arguments(frame)))
        elif event == "return" and self.calls and self.calls[-1].frame is frame:
            # What a function changed in its arguments it gives too.
            self.calls[-1].results = [*_leaves("", returned), *_arguments(frame)]
            self.calls[-1].frame = None

    def named(self, program: Program) -> Program:
        """The program with the names of the call that was given what the step was, and that gave what the step did."""
        if len(self.given) != len(program.arguments) or len(self.gave) != len(program.results):
            return program
        given, gave = set(map(_number, self.given)), {_number(value) for _, value in self.gave}
        for call in self.calls:
            arguments, results = _by_value(call.arguments), _by_value(call.results)
            if not given.isdisjoint(arguments) and not gave.isdisjoint(results):
                own = [arguments.get(_number(value), [name])[0] for value, name in zip(self.given, program.arguments, strict=True)]
                return replace(program, arguments=tuple(own), results=tuple(_results(self.gave, results)))
        return program


def _results(gave: Sequence[tuple[str, object]], known: dict[int, list[str]]) -> Iterator[str]:
    """The user's names of results. One that only the library made (a gradient) is told by its place in what the library hands on."""
    found = [(path, known[_number(value)]) for path, value in gave if _number(value) in known]
    # The library puts what the user's function returned at one place of what it returns: `[1]`, say.
    inner = next((path.removesuffix(own) for path, names in found for own in names if own[:1] in ("[", ".") and path.endswith(own)), None)
    for path, value in gave:
        names = known.get(_number(value), [])
        stripped = path.removeprefix(inner) if inner and path.startswith(inner) else path
        yield stripped if stripped in names or not names else names[0]


def _is_users(code: CodeType) -> bool:
    # A comprehension is no function of its own.
    return ownership.is_users(code.co_filename) and (code.co_name == "<lambda>" or not code.co_name.startswith("<"))


def _arguments(frame: FrameType) -> list[tuple[str, object]]:
    """The traced values among the arguments of a call, by name."""
    names, varargs, keywords, values = inspect.getargvalues(frame)
    given = [(name, values[name]) for name in [*names, *filter(None, (varargs,))] if name in values]
    given += list(values[keywords].items()) if keywords and keywords in values else []
    return [leaf for name, value in given for leaf in _leaves(name, value)]


def _leaves(name: str, value: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    """The traced values in a pytree, also within objects that are none, by their paths."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        own = name + keystr(path)
        if isinstance(leaf, Tracer):
            yield own or "result", leaf
        elif leaf is not value and depth < DEEPEST:
            yield from _leaves(own, leaf, depth + 1)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type) and not callable(leaf) and depth < DEEPEST:
            for key, item in vars(leaf).items():
                yield from _leaves(f"{own}.{key}", item, depth + 1)


def _by_value(leaves: Sequence[tuple[str, object]]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, value in leaves:
        names.setdefault(_number(value), []).append(name)
    return names


def _number(value: object) -> int:
    """What tells one traced value from another; of one that is differentiated the value itself."""
    while isinstance(value, Tracer) and isinstance(inner := getattr(value, "primal", None), Tracer):
        value = inner
    return id(value)
