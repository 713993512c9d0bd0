"""A form in the user's own names, and their own expression with it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import cast

from nandetect import ownership
from nandetect.fixing.forms import PICKED, Found, Operand
from nandetect.fixing.graph import Node
from nandetect.fixing.scope import holds
from nandetect.locating.operand_names import LONGEST, assigned
from nandetect.program import sources
from nandetect.records import Source


def before(found: Found) -> str:
    """The user's expression that is replaced; empty where it is a library's."""
    source = _source(found.place)
    return _tidy(sources.excerpt(source)) if source is not None else ""


@dataclass(frozen=True)
class Name:
    """What a value is called in an expression of the user's at `frame`; with `is_assigned`, the statement there gives it the name."""

    text: str
    frame: Source
    is_assigned: bool = False


def after(found: Found) -> str:
    """The expression as the user would write it; empty where they have no name for one of its operands, or no text for a part of it.

    A name that means something else there has the line at which it is the one that is meant, as a comment.
    """
    texts = [*found.edits.values()] or [found.form.text]
    if any(PICKED in text for text in texts):
        return ""
    used = [name for name in found.names if any(f"{{{name}}}" in text for text in texts)]
    known = {name: name_of(found.names[name]) for name in used}
    shown = _with_names(found, {name: one.text for name, one in known.items() if one is not None}) if all(known.values()) else ""
    return shown and shown + _comment(found, [one for one in known.values() if one is not None])


def _comment(found: Found, names: list[Name]) -> str:
    """Where names mean what they are to mean, of those that do not at the place of the form."""
    place = _source(found.place)
    if place is None:
        return ""
    lines = sorted({one.frame.line for one in names if not holds(one.text, one.frame, place, one.is_assigned)})
    return f"  # names as at line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}" if lines else ""


def _with_names(found: Found, names: dict[str, str]) -> str:
    if not found.edits:
        return _tidy(found.form.text.format(**_bracketed(names)))
    source = _source(found.place)
    tree = sources.expression(source) if source is not None else None
    if tree is None:
        return ""
    for name, text in found.edits.items():
        parts = _called(tree, names[name]) if found.shown_at is not None else _read_by(tree, found, found.names[name])
        new = _parsed(text.format(**_bracketed(names)))
        if not parts or new is None:
            return ""
        tree = cast(ast.expr, _Replacing(parts, new).visit(tree))
    return _tidy(ast.unparse(tree))


def _called(tree: ast.expr, text: str) -> list[ast.expr]:
    """All parts of an expression that are written so."""
    wanted = _parsed(text)
    return [node for node in ast.walk(tree) if isinstance(node, ast.expr) and wanted is not None and ast.dump(node) == ast.dump(wanted)]


def _read_by(tree: ast.expr, found: Found, operand: Operand) -> list[ast.expr]:
    """The part of the anchor's expression that is an operand of it."""
    is_its = operand.reader is found.place
    part = _part(tree, operand.slot, len(operand.reader.ins)) if is_its else None
    return [part] if part is not None else []


class _Replacing(ast.NodeTransformer):
    """Puts one expression in place of others."""

    def __init__(self, old: list[ast.expr], new: ast.expr):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if any(node is one for one in self.old) else super().visit(node)


def _bracketed(names: dict[str, str]) -> dict[str, str]:
    return {name: f"({text})" for name, text in names.items()}


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _tidy(text: str) -> str:
    """An expression on one line, with no more brackets than it needs, and numbers as people write them."""
    tree = _parsed(text.strip())
    return re.sub(r"(\de)\+?(-?)0*(?=\d)", r"\1\2", ast.unparse(tree)) if tree is not None else text


def name_of(operand: Operand) -> Name | None:
    """What the user calls an operand: the variable that it was assigned to, or what stands in the expression that reads it."""
    made, read = _source(operand.maker), _source(operand.reader)
    inside = made is not None and read is not None and sources.place(made) == sources.place(read)
    if read is not None and operand.slot >= 0 and not inside:
        tree = sources.expression(read)
        part = _part(tree, operand.slot, len(operand.reader.ins)) if tree is not None else None
        if part is not None:
            return Name(ast.unparse(part), read)
    if made is None or inside:
        return None
    if text := assigned(made):
        return Name(text, made, is_assigned=True)
    text = sources.excerpt(made)
    return Name(text, made) if len(text) <= LONGEST and _parsed(text) is not None else None


def _source(node: Node | None) -> Source | None:
    source = node.source if node is not None else None
    return source if source is not None and ownership.is_users(source.file) else None


def _part(tree: ast.expr, slot: int, count: int) -> ast.expr | None:
    """The part of an expression that is an operand of what it computes."""
    if isinstance(tree, ast.BinOp):
        return tree.left if slot == 0 else tree.right if slot == 1 else None
    if isinstance(tree, ast.UnaryOp):
        return tree.operand
    if isinstance(tree, ast.Compare):
        return tree.left if slot == 0 else tree.comparators[0]
    return _argument(tree, slot, count) if isinstance(tree, ast.Call) else None


def _argument(call: ast.Call, slot: int, count: int) -> ast.expr | None:
    given = [part for part in call.args if not (isinstance(part, ast.Constant) and isinstance(part.value, str))]
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr == "astype":
        return function.value if slot == 0 else None
    # A method of an array, unless what stands before the dot is a module's name: arrays are no attributes of modules' names.
    if isinstance(function, ast.Attribute) and (
        not given or _is_setting(given[0]) or not isinstance(function.value, ast.Name | ast.Attribute)
    ):
        return function.value if slot == 0 and not _is_transform(function) else None
    if not given or not isinstance(function, ast.Name | ast.Attribute):
        # `jax.vmap(f)(x, y)`: the arguments are those of what is called.
        return given[slot] if slot < len(given) else None
    name = function.attr if isinstance(function, ast.Attribute) else function.id
    if name == "where" and len(given) == 3:
        # The primitive takes the false case first.
        return given[(0, 2, 1)[slot]] if slot < 3 else None
    return given[slot] if slot < len(given) else None


def _is_transform(function: ast.Attribute) -> bool:
    return isinstance(function.value, ast.Call) and isinstance(function.value.func, ast.Attribute) and function.value.func.attr == "at"


def _is_setting(part: ast.expr) -> bool:
    """Whether an argument is an axis or another number, and no array."""
    if isinstance(part, ast.UnaryOp):
        return _is_setting(part.operand)
    return isinstance(part, ast.Constant) or (isinstance(part, ast.Tuple) and all(map(_is_setting, part.elts)))
