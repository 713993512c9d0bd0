"""From an equation to the user's source: frames joined over the enclosing equations, the user's own first."""

from __future__ import annotations

import ast
import functools
import linecache
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from nandetect import compat, ownership
from nandetect.records import Frame, Source

# File, line and function of a line that runs.
Place: TypeAlias = tuple[str, int, str]
# File, lines and columns of an expression.
Expression: TypeAlias = tuple[str, int, int | None, int | None, int | None]


def joined_frames(path: Iterable[compat.JaxprEqn]) -> list[Frame]:
    """The frames of the last equation of `path` (enclosing equations, outermost first), then of those that enclose it."""
    frames: list[Frame] = []
    for eqn in reversed(list(path)):
        frames += [frame for frame in _frames(eqn) if frame not in frames]
    return frames


def _frames(eqn: compat.JaxprEqn) -> list[Frame]:
    return frames_at(eqn.source_info)


def frames_at(site: compat.Site) -> list[Frame]:
    """The frames in which something was traced, innermost first, without nandetect's own."""
    frames = [frame for frame in compat.user_frames(site) if not ownership.is_machinery(frame.file)]
    return [replace(frame, code=code_at(frame.file, frame.line)) for frame in frames]


def code_at(file: str, line: int) -> str:
    """One line of source as it stands in the file, without the newline."""
    return linecache.getline(file, line).rstrip("\n")


def source_of(frames: Sequence[Frame]) -> Source | None:
    """The user's innermost frame with all the others; the library's where there is none of the user's."""
    if not frames:
        return None
    first = next((frame for frame in frames if ownership.is_users(frame.file)), frames[0])
    return Source(
        file=first.file,
        line=first.line,
        column=first.column,
        end_line=first.end_line,
        end_column=first.end_column,
        function=first.function,
        code=first.code,
        frames=tuple(frames),
    )


def source(eqn: compat.JaxprEqn, enclosing: Sequence[compat.JaxprEqn] = ()) -> Source | None:
    """Where the user wrote an equation. `enclosing` are the equations whose sub-jaxprs hold it, outermost first."""
    return source_of(joined_frames([*enclosing, eqn]))


def excerpt(frame: Frame) -> str:
    """The exact sub-expression that a frame marks, or its whole line where Python kept no columns; on one line."""
    if frame.column is not None and not frame.code:
        frame = replace(frame, code=code_at(frame.file, frame.line))
    further = [code_at(frame.file, number) for number in range(frame.line + 1, (frame.end_line or frame.line) + 1)]
    return frame.expression(further).strip()


def place(frame: Frame) -> Expression:
    """What tells one expression of the source from another."""
    return frame.file, frame.line, frame.column, frame.end_line, frame.end_column


@functools.lru_cache(maxsize=64)
def parsed(file: str) -> ast.Module:
    """A file's syntax tree; an empty one where it is not Python that can be read."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ast.Module([], [])


def expression(frame: Frame) -> ast.expr | None:
    """The sub-expression that a frame marks, as syntax; None where it is not a whole expression."""
    try:
        return ast.parse(excerpt(frame).strip(), mode="eval").body
    except SyntaxError:
        return None


def full_stack(path: Iterable[compat.JaxprEqn]) -> str:
    """The joined name stack of the last equation of `path`."""
    return "/".join(stack for stack in map(compat.name_stack, path) if stack)


_TRANSFORM = re.compile(r"\b(jvp|transpose|vmap|jit|pjit|pmap|checkpoint|remat|rematted_computation|linearize)\(")


def scope(path: Iterable[compat.JaxprEqn]) -> str:
    """The name stack as flax, haiku or `jax.named_scope` wrote it, without JAX's transforms."""
    stack = _TRANSFORM.sub("", full_stack(path)).replace(")", "")
    return "/".join(part for part in stack.split("/") if part and part != "rematted_computation")


def vmaps(eqn: compat.JaxprEqn) -> int:
    """How many `vmap`s an equation stands under, within its sub-trace."""
    return compat.name_stack(eqn).count("vmap(")


def caller() -> Place | None:
    """File, line and function of the user's line that is calling nandetect now."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if ownership.is_users(code.co_filename):
            return code.co_filename, frame.f_lineno, code.co_qualname
        frame = frame.f_back
    return None


def frame_at(place: Place | None) -> Frame | None:
    """A place as a frame, with its line of code; None for None."""
    return Frame(file=place[0], line=place[1], function=place[2], code=code_at(place[0], place[1])) if place else None
