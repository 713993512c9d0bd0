"""How single values are said: numbers, shapes, places, operands. Text in, text out; nothing here knows the page."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from nandetect import ownership, primitives, wording
from nandetect.records import Event, Frame, Operand
from nandetect.render.page import joined, listing

_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}
_LONGEST_NAME = 60
_WRITTEN_OUT = 3
_PASS = {"forward": "in the forward pass", "backward": "in the backward pass", "update": "in the update"}
_ROLE = {
    "computed": "computed in the forward pass, where only the gradient depends on it",
    "absorbed": "computed in the forward pass, whose results stayed finite, unlike the gradient",
    "recomputed": "recomputed for the backward pass",
    "forward mode": "in the derivative (forward mode)",
}


def bound(value: object, dtype: str = "") -> str:
    """An end of a range: a number, whole ones without their `.0`."""
    return "0" if value == 0 else wording.number(value, dtype).removesuffix(".0")


def amount(count: int, unit: str) -> str:
    """`1 zero`, `31 zeros`, `1,024 nan`."""
    return joined(f"{count:,} {unit}{'' if count == 1 or unit in ('nan', 'inf') else 's'}")


def index(where: Sequence[int]) -> str:
    """An element's index as it would be typed."""
    return joined(str(list(where)))


def array_type(shape: Sequence[int], dtype: str) -> str:
    """`f32[40,10]`, as jaxprs write it."""
    kind = dtype.rstrip("0123456789")
    short = f"{_SHORT[kind]}{dtype[len(kind) :]}" if kind in _SHORT else dtype
    return f"{short}[{','.join(map(str, shape))}]" if short or shape else ""


def path(file: str) -> str:
    """A file as the reader knows it: relative to the working directory when below it, without the way to an installed package."""
    folder = ownership.installed_in(file)
    if folder is not None:
        return Path(os.path.abspath(file)).relative_to(folder).as_posix()
    try:
        return str(Path(file).relative_to(os.getcwd()))
    except (ValueError, OSError):
        return file


def function(qualified: str) -> str:
    """A function's name without those that enclose it: `body` for `setup.<locals>.loss.<locals>.body`, `Net.__call__` as it is."""
    return qualified.rpartition("<locals>.")[2]


def marked(frame: Frame) -> str:
    """The exact sub-expression of a frame where it is all on one line, else that line."""
    return frame.expression().strip()


def called(name: str) -> str:
    """An operand's name; a written-out expression in backticks, cut where it is long."""
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return joined(f"`{short}`" if " " in short else short)


def output(path: str) -> str:
    """The pytree path of an output, with the word `output` before a path that starts without a name."""
    return f"output{path}" if not path or path[0] in "[." else path


def place(frame: Frame | None, near: Frame | None = None) -> str:
    """A line: its number alone in the file of `near`, else with the file."""
    if frame is None:
        return ""
    return str(frame.line) if near is not None and near.file == frame.file else f"{path(frame.file)}:{frame.line}"


def spot(frame: Frame | None, near: Frame | None = None) -> str:
    """A line in a sentence: `line 35` in the file of `near`, else `train.py:35`."""
    where = place(frame, near)
    return f"line {where}" if where.isdigit() else where


def spots(frames: Sequence[Frame], near: Frame | None = None) -> str:
    """Lines in a sentence: `lines 88, 131`, or `train.py:35, loss.py:3` where they are not in the file of `near`."""
    places = list(dict.fromkeys(place(frame, near) for frame in frames))
    shown = listing(places, 4)
    return f"{'line' if len(places) == 1 else 'lines'} {shown}" if all(one.isdigit() for one in places) else shown


def phase(event: Event) -> str:
    """`in the backward pass`."""
    return _ROLE[event.role] if event.role else _PASS[event.phase]


def is_aside(event: Event) -> bool:
    """Whether an event's pass takes a clause to say, which stands at the end of a sentence."""
    return event.role in ("computed", "absorbed", "recomputed")


def iterations(event: Event, near: Frame | None = None) -> str:
    """`scan iteration 3`; of loops in loops each by its line, outermost first: `iteration 3 of the scan at ppo.py:269`."""
    loops = [(kind, number) for kind, number in event.context if primitives.named(kind).loops]
    if len(loops) < 2:
        return ", ".join(f"{kind} iteration {number}" for kind, number in loops)
    told = itertools.zip_longest(loops, event.loops[: len(loops)])
    return ", ".join(_iteration(kind, number, spot(frame, near)) for (kind, number), frame in told)


def _iteration(kind: str, number: int, where: str) -> str:
    return f"iteration {number} of the {kind} at {where}" if where else f"{kind} iteration {number}"


def surroundings(event: Event) -> list[str]:
    """What an equation stood in, outermost first, a phrase each."""
    phrases = {
        "scan": "in scan iteration {} (counted from 0)",
        "while": "in while iteration {} (counted from 0)",
        "cond": "in branch {} of a cond",
        "vmap": "under vmap over {}",
        "shard": "on shard {}",
    }
    lines = iter(event.loops if sum(primitives.named(kind).loops for kind, _ in event.context) > 1 else ())
    told = []
    for kind, number in event.context:
        where = spot(next(lines, None), event.source) if primitives.named(kind).loops else ""
        told.append(f"in {_iteration(kind, number, where)} (counted from 0)" if where else phrases.get(kind, kind + " {}").format(number))
    return told


def applied(event: Event, parts: Sequence[str]) -> str:
    """An elementwise equation written out over its operands' names or values: `labels / probs`, `log(0.0)`."""
    infix = primitives.named(event.primitive).infix
    if infix and len(parts) == 2:
        left, right = (f"({part})" if " " in part else part for part in parts)
        return f"{left} {infix} {f'({right})' if right.startswith('-') else right}"
    name = event.dtype if event.primitive == "convert_element_type" and event.dtype else event.primitive
    return f"{name}({', '.join(parts)})"


def by_name(event: Event) -> str:
    """The equation over its operands' names; empty unless each has one, and of many."""
    names = [operand.name for operand in event.operands]
    return applied(event, names) if names and all(names) and len(names) <= _WRITTEN_OUT else ""


def by_value(event: Event) -> str:
    """The equation over the values at the bad element; empty unless each is known, and of many."""
    if not 0 < len(event.operands) <= _WRITTEN_OUT or any(operand.value is None for operand in event.operands):
        return ""
    return joined(applied(event, [wording.number(operand.value, operand.dtype) for operand in event.operands]))


def operation(event: Event) -> str:
    """An equation as its line has it, where that is short and does not fill it: `jnp.exp(z)`; else by the name of its primitive."""
    source = event.source
    expression = "" if source is None or source.column is None else source.expression().strip()
    is_short = source is not None and expression != source.code.strip() and len(expression) <= _LONGEST_NAME
    return joined(f"`{expression}`") if expression and is_short else f"`{event.primitive}`"


def given(event: Event) -> str:
    """An element of an argument as it would be typed: `p['w'][3, 0]`; a constant of the step has no name of its own."""
    if event.source is not None or not event.argument:
        return event.argument or "an input"
    return joined(f"`{event.argument}{index(event.index) if event.index else ''}`")


def kind_and_range(operand: Operand) -> str:
    """`f32[40,10], min 0, max 1, 31 zeros`; empty for a scalar."""
    about = summary(operand)
    return f"{array_type(operand.shape, operand.dtype)}, {about}" if about else ""


def operand(operand: Operand, position: int, where: Sequence[int] = (), before: Operand | None = None) -> str:
    """`probs f32[40,10] is 0.0 there (min 0, max 1, 31 zeros)`; the type is said once for operands alike."""
    alike = before is not None and (before.shape, before.dtype) == (operand.shape, operand.dtype)
    name = called(operand.name) if operand.name else joined(operand.made_by) or f"operand {position}"
    words = [name, "" if alike else array_type(operand.shape, operand.dtype)]
    if operand.value is not None:
        elsewhere = operand.shape and operand.index is not None and tuple(operand.index) != tuple(where)
        which = f"at {index(operand.index or ())}" if elsewhere else "there" if operand.shape else ""
        words += ["is", wording.number(operand.value, operand.dtype), which]
    about = summary(operand)
    return " ".join(word for word in words if word) + (f" ({about})" if about else "")


def summary(operand: Operand) -> str:
    """The range of an array and the counts worth a word; empty for a scalar, whose value says it all."""
    if not operand.shape:
        return ""
    ends = [("min", operand.min), ("max", operand.max)]
    told = [joined(f"{name} {bound(end, operand.dtype)}") for name, end in ends if end is not None]
    counts = [(operand.nan, "nan"), (operand.inf, "inf"), (operand.zero, "zero"), (operand.subnormal, "subnormal")]
    return ", ".join(told + [amount(count, unit) for count, unit in counts if count])
