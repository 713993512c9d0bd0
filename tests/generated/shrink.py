"""A failing program cut to a few lines that still fail in the same way."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from itertools import islice

from generated.faults import MARK

# What a statement is replaced by when it is cut: its target is then the vector that the function was given.
_KEPT = ("initial", "step", "trigger", "main", "start")


def shrunk(source: str, fails: Callable[[str], bool], most: int = 400) -> str:
    """The shortest program found within `most` tries for which `fails` still holds."""
    tried = at = 0
    cut_since_start = False
    while tried < most:
        # What was tried before a cut that succeeded is not tried again until all is gone through.
        for number, candidate in enumerate(islice(_smaller(source), at, None), at):
            tried += 1
            if fails(candidate):
                source, at, cut_since_start = candidate, number, True
                break
            if tried >= most:
                return source
        else:
            if not cut_since_start:
                return source
            at, cut_since_start = 0, False
    return source


def _smaller(source: str) -> Iterator[str]:
    """Programs with one thing less, the largest cuts first. Comments are lost but the mark."""
    for tree in _cuts(source):
        text = _marked(tree)
        if text is not None and len(text) < len(_plain(source)):
            yield text


def _plain(source: str) -> str:
    return _marked(_parse(source)) or source


def _parse(source: str) -> ast.Module:
    """The tree, in which the marked statement is followed by the mark as a string."""
    lines = source.splitlines()
    (at,) = [number for number, line in enumerate(lines) if MARK in line]
    code, mark = lines[at].split(MARK)
    indent = " " * (len(code) - len(code.lstrip()))
    lines[at : at + 1] = [code.rstrip(), f"{indent}{MARK + mark!r}"]
    return ast.parse("\n".join(lines))


def _marked(tree: ast.Module) -> str | None:
    """The source of a tree with the mark at the end of its statement's first line, or None where it is gone."""
    lines = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
    found = [number for number, line in enumerate(lines) if MARK in line]
    if len(found) != 1 or found[0] == 0:
        return None
    mark = ast.literal_eval(lines.pop(found[0]).strip())
    lines[found[0] - 1] += f"  {mark}"
    return "\n".join(lines) + "\n"


def _cuts(source: str) -> Iterator[ast.Module]:
    tree = _parse(source)
    bodies = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.FunctionDef, ast.With))]
    for which, node in enumerate(bodies):
        for number in reversed(range(len(node.body))):
            statement = node.body[number]
            if isinstance(statement, ast.FunctionDef) and statement.name in _KEPT:
                continue
            is_marked = number + 1 < len(node.body) and _is_mark(node.body[number + 1])
            for replacement in _instead(statement, node):
                if is_marked and not replacement:
                    continue
                other = copy.deepcopy(tree)
                bodies_of_it = [inner for inner in ast.walk(other) if isinstance(inner, (ast.Module, ast.FunctionDef, ast.With))]
                bodies_of_it[which].body[number : number + 1] = replacement
                if bodies_of_it[which].body:
                    yield other


def _is_mark(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and MARK in str(statement.value.value)


def _instead(statement: ast.stmt, around: ast.AST) -> Iterator[list[ast.stmt]]:
    """What a statement may be replaced by: nothing, one of the parts of a sum that it returns, an argument of what it calls."""
    if _is_mark(statement):
        return
    if not isinstance(statement, ast.Return):
        yield []
    if isinstance(statement, (ast.Return, ast.Assign)) and statement.value is not None and isinstance(around, ast.FunctionDef):
        for part in _parts(statement.value):
            smaller = copy.deepcopy(statement)
            smaller.value = copy.deepcopy(part)
            yield [smaller]
    if isinstance(statement, ast.With):
        yield statement.body


def _parts(value: ast.expr) -> Iterator[ast.expr]:
    for node in ast.walk(value):
        if (
            node is not value
            and isinstance(node, (ast.Name, ast.Call, ast.BinOp))
            and not (isinstance(node, ast.Name) and node.id in ("jnp", "jax", "lax"))
        ):
            yield node
