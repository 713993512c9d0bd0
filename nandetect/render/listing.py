"""A listing as text: the author's source with the equations under each line, or the jaxpr with the source beside each equation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from nandetect.listing import Atom, Body, Equation, Listing, Passage
from nandetect.records import Frame, plain
from nandetect.render import words

_EXPRESSION = 34
_OPERANDS = 6
_PARAMETER = 24
_COLUMN = 64
_LEAVES = 12
_PHASES = ("forward", "backward", "update")


def annotated(listing: Listing) -> Iterator[str]:
    """The source, line by line, each followed by what JAX makes of it."""
    yield from _heading(listing)
    by_line: dict[tuple[str, int], list[Equation]] = {}
    without_line: list[Equation] = []
    for equation in listing.program.all_equations():
        if equation.call:
            continue
        if equation.frame:
            by_line.setdefault((equation.frame.file, equation.frame.line), []).append(equation)
        else:
            without_line.append(equation)
    for file, passages in groupby(listing.passages, key=lambda passage: passage.file):
        yield from ("", words.path(file))
        for number, passage in enumerate(passages):
            yield from [" ..."] if number else []
            yield from _passage(passage, by_line)
    if without_line:
        yield from ("", "made by JAX, with no line of Python behind it")
        yield from _notes(without_line, 4)


def _heading(listing: Listing) -> Iterator[str]:
    equations = [equation for equation in listing.program.all_equations() if not equation.call]
    phases = Counter(equation.phase for equation in equations)
    parts = ", ".join(f"{phases[phase]} {phase}" for phase in _PHASES if phases[phase])
    yield f"{listing.target}: {len(equations)} equations ({parts or 'none'})"
    yield from _leaves("takes  ", listing.arguments, _given(listing))
    yield from _leaves("returns", listing.results, listing.program.outputs)


def _given(listing: Listing) -> Sequence[Atom]:
    """The program's arguments, without the constants that stand before them among its inputs."""
    return listing.program.inputs[len(listing.program.inputs) - len(listing.arguments) :]


def _leaves(title: str, names: Sequence[str], atoms: Sequence[Atom]) -> Iterator[str]:
    blank = " " * len(title)
    for number, (name, atom) in enumerate(zip(names[:_LEAVES], atoms, strict=False)):
        yield f"  {title if number == 0 else blank} {f'{name} {atom.type}'.strip()}"
    if len(names) > _LEAVES:
        yield f"  {blank} and {len(names) - _LEAVES} more"


def _passage(passage: Passage, by_line: dict[tuple[str, int], list[Equation]]) -> Iterator[str]:
    width = len(str(passage.first + len(passage.lines)))
    for number, code in enumerate(passage.lines, start=passage.first):
        yield f"{number:>{width}} | {code}".rstrip()
        yield from _notes(by_line.get((passage.file, number), []), width)


def _notes(equations: Sequence[Equation], width: int) -> Iterator[str]:
    """The equations of one line: phase by phase, each behind the expression that it was made of; equal rows are counted."""
    said = ("", "")
    for phase in _PHASES:
        of_phase = [equation for equation in equations if equation.phase == phase]
        rows = Counter((_cut(equation.expression, _EXPRESSION), _brief(equation), ", ".join(equation.context)) for equation in of_phase)
        for (expression, text, context), count in rows.items():
            first = phase if phase != said[0] else ""
            shown = expression if (phase, expression) != said else ""
            said = (phase, expression)
            times = f"   x{count}" if count > 1 else ""
            inside = f"   in {context}" if context else ""
            yield f"{'':{width}} |   {first:<8}  {shown:<{_EXPRESSION}}  {text}{times}{inside}".rstrip()


def _brief(equation: Equation) -> str:
    """`reduce_sum[axes=(1,)] f32[8,64] -> f32[8]`."""
    if equation.bodies:
        inside = sum(not inner.call for body in equation.bodies for inner in body.all_equations())
        return f"{equation.primitive} ({inside} equations inside)"
    result = ", ".join(atom.type for atom in equation.outputs)
    # Parameters for shapes and sizes are left out: the result's type says them.
    params = [f"{key}={value}" for key, value in equation.params if _is_short(value) and "shape" not in key and "sizes" not in key]
    operands = [atom.name if atom.literal else atom.type for atom in equation.inputs]
    left = len(operands) - _OPERANDS
    shown = operands[:_OPERANDS] + ([f"and {left} more"] if left > 0 else [])
    return " ".join([f"{equation.primitive}{_bracketed(params)}", *shown, "->", result])


def _bracketed(params: Sequence[str]) -> str:
    return f"[{' '.join(params)}]" if params else ""


def _is_short(value: str) -> bool:
    """Whether a parameter is a number or a flat list of them, and so worth its room."""
    return value != "()" and "((" not in value and len(value) <= _PARAMETER and set(value) <= set("0123456789-.(), e")


def _cut(text: str, width: int) -> str:
    """The text with its middle left out where it is too long."""
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[: width - 1 - half]}…{text[len(text) - half :]}"


def jaxpr(listing: Listing) -> Iterator[str]:
    """The jaxpr itself; behind every equation its line, its pass and the expression that it was made of."""
    yield f"# {listing.target}"
    for name, atom in zip(listing.arguments, _given(listing), strict=True):
        yield f"# {atom} is {name}"
    yield from _body(listing.program, 0)


def _body(body: Body, depth: int) -> Iterator[str]:
    pad = "  " * depth
    name = f"{body.name}=" if body.name else ""
    yield f"{pad}{name}{{ lambda {' '.join(map(str, body.inputs))}. let"
    for equation in body.equations:
        yield _with_source(f"{pad}    {_whole(equation)}", equation)
        for inner in equation.bodies:
            yield from _body(inner, depth + 3)
    yield f"{pad}  in ({', '.join(atom.name for atom in body.outputs)}) }}"


def _whole(equation: Equation) -> str:
    """`c:f32[8] = reduce_sum[axes=(1,)] b`."""
    results = " ".join(map(str, equation.outputs))
    params = [f"{key}={value}" for key, value in equation.params]
    operands = " ".join(str(atom) if atom.literal else atom.name for atom in equation.inputs)
    return f"{results} = {equation.primitive}{_bracketed(params)} {operands}".rstrip()


def _with_source(text: str, equation: Equation) -> str:
    where = _place(equation.frame)
    return f"{text:<{_COLUMN}}  # {where} {equation.phase}: {equation.expression}".rstrip(" :")


def _place(frame: Frame | None) -> str:
    return words.place(frame) or "no line"


def data(listing: Listing) -> Mapping[str, object]:
    """The listing as the body of a JSON document."""
    return plain(listing)
