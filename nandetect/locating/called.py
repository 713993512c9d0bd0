"""The call of a library that an equation was made in, and what it returned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nandetect import ownership, wording
from nandetect.locating.made import Made
from nandetect.locating.trail import Node
from nandetect.program import sources
from nandetect.program.sources import Expression


@dataclass(frozen=True)
class Call:
    """A call that a line of the user's makes into a library: the library's function, and the number that it returned."""

    place: Expression
    function: str
    returned: float | None = None

    @property
    def said(self) -> str:
        """`ctc_loss`, which returned -8e-08."""
        back = "" if self.returned is None else f", which returned {wording.short(self.returned)}"
        return f"`{self.function}`{back}"


def of(node: Node) -> Call | None:
    """The call that an equation was made in; None where it stands in the user's own code, or in what JAX itself computes for it."""
    source = sources.source(node.eqn, node.run.eqns)
    if source is None or ownership.is_users(source.frames[0].file) or not ownership.is_users(source.file):
        return None
    inside = next((number for number, frame in enumerate(source.frames) if ownership.is_users(frame.file)), 0)
    return Call(sources.place(source), source.frames[inside - 1].function.rpartition(".")[2]) if inside else None


def on_the_way(before: Call | None, made: Made) -> Call | None:
    """The call that the way back is in after one more equation, with what it returned: what the first equation met in it made."""
    call = of(made.node)
    if call is None:
        return None
    if before is not None and (before.place, before.function) == (call.place, call.function):
        return before
    return replace(call, returned=made.value)
