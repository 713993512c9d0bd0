"""What the way back from a deadly element has passed, and what that adds to what is said where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nandetect import wording
from nandetect.locating import called, integers
from nandetect.locating.called import Call
from nandetect.locating.cause_rules import GROWTH, Explained
from nandetect.locating.made import Deadly, Element, Made
from nandetect.records import Event


@dataclass(frozen=True)
class Began:
    """What a carried element was before the first of so many iterations."""

    value: float
    count: int

    def grew(self, deadly: Deadly, value: float) -> bool:
        """Whether the iterations made of it what is large."""
        return deadly is Deadly.HUGE and self.count > 1 and abs(self.value) * GROWTH < abs(value)

    @property
    def said(self) -> str:
        """The end of a phrase that says what it is now."""
        return f", it was {wording.short(self.value)} before the first of {self.count} iterations"


@dataclass(frozen=True)
class Told:
    """Equations already passed that may tell better what happened than the one at which the way ends.

    `last` is the last one passed; `chosen` chose the element among its operands, `summed` summed it, and since then it was only moved;
    `equal` is a difference of two equal operands, `grew` the one of the iteration that made it grow most. `read` are the indices that it
    was read by, `began` is what was in its place before the loop, if it was carried here, `entered` how many iterations were. `call` is the
    call of a library that is being passed, `trying` whether this way is gone only to see where it leads.
    """

    last: Made | None = None
    chosen: Made | None = None
    summed: Made | None = None
    equal: Made | None = None
    grew: Made | None = None
    read: Sequence[int] = ()
    began: Began | None = None
    entered: int = 0
    call: Call | None = None
    trying: bool = False

    def after(self, made: Made, explained: Explained) -> Told:
        """The same with one more equation passed."""
        same = made.primitive.hands_on or made.primitive.reshapes
        return replace(
            self,
            last=made,
            chosen=made if made.primitive.chooses else self.chosen if made.primitive.reshapes else None,
            summed=made if made.primitive.sums else self.summed if same else None,
            equal=made if explained.instead else self.equal,
            grew=max((grown for grown in (self.grew, made) if grown is not None), key=growth),
            read=integers.read_by(made.node, made.index) or (self.read if same else ()),
            call=called.on_the_way(self.call, made),
        )


def growth(made: Made) -> float:
    """How many times its largest operand an element is."""
    most = max((float(np.abs(values).max()) for values in made.values.values()), default=0.0)
    return abs(made.value) / most if most and not made.primitive.hands_on else 0.0


@dataclass(frozen=True)
class Passed:
    """What an equation, loop or argument that was passed tells, and the element to go on with, if any."""

    events: tuple[Event, ...] = ()
    element: Element | None = None
    told: Told = Told()
