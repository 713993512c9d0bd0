"""Whether an expression means at one place of a source what it meant at another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeAlias

from nandetect.program import sources
from nandetect.records import Frame

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def holds(text: str, here: Frame, there: Frame, is_assigned: bool = False) -> bool:
    """Whether what is read or assigned as `text` `here` is called so `there` too: its names are in scope and were not bound anew.

    With `is_assigned` the statement that `here` stands in binds it, else that one may bind it anew already.
    """
    if here.file != there.file:
        return False
    inner, outer = _functions(there), _functions(here)
    if inner[: len(outer)] != outer:
        return False
    first = (here.end_line or here.line) + 1 if is_assigned else here.line
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    scope = outer[-1] if outer else sources.parsed(here.file)
    return not any(name in names and first <= line < there.line for name, line in _bound(scope))


def _functions(frame: Frame) -> list[_Function]:
    """The functions that a place stands in, outermost first."""
    at = (frame.line, frame.column or 0)
    found = [
        node
        for node in ast.walk(sources.parsed(frame.file))
        if isinstance(node, _FUNCTIONS) and (node.lineno, node.col_offset) <= at < (node.end_lineno or 0, node.end_col_offset or 0)
    ]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _bound(scope: ast.AST) -> Iterator[tuple[str, int]]:
    """The names that a function binds, and at which lines; not those of functions inside it."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        if not isinstance(node, _FUNCTIONS):
            yield from _bound(node)
