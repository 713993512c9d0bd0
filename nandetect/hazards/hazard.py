"""What a hazard is: a way of writing something that breaks, a way that does not, and how a report shows the first. No JAX here."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from nandetect.records import Event

# The value of a name in a hazard's expressions: a number, a truth value, a vector or a matrix.
Input: TypeAlias = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
Inputs: TypeAlias = Mapping[str, Input]


@dataclass(frozen=True)
class Facts:
    """An origin, the equations that its value went through, and its causes, with what hazards ask of them."""

    origin: Event
    chain: tuple[Event, ...] = ()
    cause: tuple[Event, ...] = ()

    @cached_property
    def expression(self) -> str:
        """The expression that the origin stands in, as the user wrote it; its whole line where no columns are known."""
        return self.origin.source.expression() if self.origin.source else ""

    @cached_property
    def line(self) -> str:
        """The line that the origin stands in."""
        return self.origin.source.code if self.origin.source else ""

    @cached_property
    def lines(self) -> str:
        """Every line of source that the origin and its causes name, libraries included."""
        sources = [event.source for event in (self.origin, *self.cause) if event.source]
        frames = [frame for source in sources for frame in (source, *source.frames)]
        return "\n".join(dict.fromkeys(frame.code for frame in frames))

    def meaning(self, slot: int) -> str:
        """The line above the origin that assigned an operand of it, where there is one; else the operand's name."""
        operands, source = self.origin.operands, self.origin.source
        name = operands[slot].name if slot < len(operands) else ""
        if source is None or not name.isidentifier():
            return name
        assigns = re.compile(rf"(^|[;,(]\s*|\s){name}\s*=[^=]")
        above = reversed(linecache.getlines(source.file)[: source.line])
        return next((line.strip() for line in above if assigns.search(line)), name)

    def made(self, *primitives: str, phase: str | None = None, saying: str = "") -> bool:
        """Whether the origin is one of these primitives, in this phase, for a reason that says this."""
        origin = self.origin
        return origin.primitive in primitives and phase in (None, origin.phase) and re.search(saying, origin.reason) is not None

    def derives(self, *operations: str) -> bool:
        """Whether the origin is the derivative of one of these operations."""
        return self.origin.derivative_of in operations

    def because(self, *primitives: str, saying: str = "") -> bool:
        """Whether one of these primitives is a cause, for a reason that says this; any primitive where none is named."""
        return any((not primitives or event.primitive in primitives) and re.search(saying, event.reason) for event in self.cause)

    def then(self, *primitives: str) -> bool:
        """Whether one of these primitives carried the value on from the origin."""
        return any(event.primitive in primitives for event in self.chain[1:])

    def written(self, pattern: str, where: str | None = None) -> bool:
        """Whether the source matches a pattern: the lines of the origin and its causes, or the text given."""
        return re.search(pattern, self.lines if where is None else where) is not None

    def at_origin(self, slot: int = 0) -> float | None:
        """The value of an operand at the origin's bad element, where it is known."""
        return _real(self.origin, slot)

    def at_cause(self, *primitives: str) -> float | None:
        """The value of the first operand of the first cause of these primitives, where it is known."""
        return next((_real(event, 0) for event in self.cause if event.primitive in primitives), None)


def _real(event: Event, slot: int) -> float | None:
    """The value of an operand at the event's bad element; None where it is not known, or no real number."""
    value = event.operands[slot].value if slot < len(event.operands) else None
    return float(value) if isinstance(value, int | float) else None


def own_value(facts: Facts) -> Inputs | None:
    """The first operand's value as `x`, for a hazard of one function of one value."""
    value = facts.at_origin()
    return None if value is None else {"x": value}


def nothing(facts: Facts) -> Inputs | None:
    """None, for a hazard that cannot be run on the user's own values: a report holds too few of them."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazard:
    """A way of writing something that goes non-finite, and the way that does not.

    `before` and `after` are Python expressions over the names of `breaks_on`, on which `before` is non-finite in its value or its gradient
    and `after` is finite. `ordinary` are inputs on which both are the same number; empty where no finite input is ordinary. `matches` says
    whether a report shows the hazard, `values` gives the user's own inputs there. A `general` one is offered where nothing else matches.
    """

    code: str
    name: str
    why: str
    before: str
    after: str
    breaks_on: Inputs
    ordinary: Inputs = field(default_factory=dict)
    fails: Literal["value", "gradient"] = "value"
    dtype: str = "float32"
    matches: Callable[[Facts], bool]
    values: Callable[[Facts], Inputs | None] = nothing
    general: bool = False
