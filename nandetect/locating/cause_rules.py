"""What the equation that made a deadly element says of it: why it came to be, or from which of the operands it was handed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import numpy as np

from nandetect import compat, nonfinite, primitives, wording
from nandetect.compat import Atom
from nandetect.interpret.shards import flows_of
from nandetect.interpret.walk import Run
from nandetect.locating.trail import Node

# A result that is this much larger than every operand was made large here; a smaller one was handed on.
GROWTH = 4.0
# A difference that is this much smaller than what it is the difference of is what rounding left of it.
CANCELLED = 1e-3
# An addend that is this much smaller than the sum did not make it what it is.
SLIGHT = 0.1

NOTHING_SUMMED = "nothing is summed there"
MASKED = "the mask is False there"

# A run, an atom of it, and the number of the equation that makes it there; None for an argument, a constant and a literal.
Maker = tuple[Run, Atom, int | None]


class Deadly(Enum):
    """What is wrong with an operand's value: 0, negative, large, at an end of a function's domain; or an inf, of which a NaN was made."""

    ZERO = auto()
    NEGATIVE = auto()
    HUGE = auto()
    EDGE = auto()
    INFINITE = auto()


@dataclass(frozen=True)
class Element:
    """One element of a variable or literal in a run, and what is wrong with it."""

    run: Run
    atom: Atom
    index: tuple[int, ...]
    deadly: Deadly

    @property
    def value(self) -> float:
        """The element itself; of a complex one the magnitude."""
        return float(plain(nonfinite.host(self.run.read(self.atom))[self.index]))


@dataclass(frozen=True)
class Explained:
    """What an equation says (nothing, where it only handed the element on), and the operand to go on with, if any.

    `deadly` is what is wrong with that operand, where that is another thing. `instead` is said of this equation where the way back ends at
    an argument: of two equal operands neither is to blame.
    """

    reason: str = ""
    slot: int | None = None
    deadly: Deadly | None = None
    instead: str = ""


class Made:
    """One element as an equation made it, with the elements of each floating operand that it was made from."""

    def __init__(self, node: Node, output: int, index: tuple[int, ...]):
        self.node, self.output, self.index = node, output, index
        self.eqn = node.eqn
        self.primitive = primitives.of(self.eqn)
        self.name = self.primitive.name
        self.ins = node.run.ins(self.eqn)
        self.dtype = str(compat.aval(self.eqn.outvars[output]).dtype)

    @cached_property
    def value(self) -> float:
        """The element itself; of a complex one the magnitude."""
        return float(plain(nonfinite.host(self.node.run.read(self.eqn.outvars[self.output]))[self.index]))

    @property
    def is_product(self) -> bool:
        """Whether the equation multiplies or divides two numbers."""
        return self.primitive.multiplies and not self.primitive.sums

    @property
    def takes_integers(self) -> bool:
        """Whether it makes a float of an integer."""
        return self.primitive.casts and nonfinite.host(self.ins[0]).dtype.kind in "iu"

    @property
    def place(self) -> tuple[Node, int, tuple[int, ...]]:
        """Which element of which output of which equation."""
        return self.node, self.output, self.index

    @cached_property
    def masks(self) -> dict[int, np.ndarray]:
        """By operand, which of its elements this one was made from."""
        mark = np.zeros(np.shape(self.node.run.read(self.eqn.outvars[self.output])), bool)
        mark[self.index] = True
        if self.primitive.casts:
            return {0: mark}  # also from integers and booleans, which no non-finite value flows through
        return {flow.slot: flow.pull(mark) for flow in flows_of(self.node.run, self.eqn, self.ins, self.output)}

    @cached_property
    def values(self) -> dict[int, np.ndarray]:
        """The values of the elements in `masks`; operands that have none are left out."""
        by_slot = {slot: plain(nonfinite.host(self.ins[slot])[mask]).astype(np.float64) for slot, mask in self.masks.items()}
        return {slot: values for slot, values in by_slot.items() if values.size}

    def holding(self, test: Callable[[np.ndarray], np.ndarray]) -> list[int]:
        """The operands that have an element in `values` which passes a test, variables before literals."""
        return sorted([slot for slot, values in self.values.items() if np.any(test(values))], key=self.is_written)

    def is_written(self, slot: int) -> bool:
        """Whether an operand is a literal of the program."""
        return is_written(self.node.run, self.eqn.invars[slot])

    def largest(self) -> int:
        """The operand that holds the largest magnitude, a variable before a literal."""
        most = max(np.abs(values).max() for values in self.values.values())
        return self.holding(lambda values: np.abs(values) == most)[0]

    def element(self, slot: int, deadly: Deadly) -> Element:
        """The element of an operand to go on with: of those in `values` the one nearest to 0, the most negative or the largest."""
        values = self.values[slot]
        score = {Deadly.ZERO: -np.abs(values), Deadly.NEGATIVE: -values}.get(deadly, np.abs(values))
        worst = int(np.argmax(score))
        index = tuple(int(position) for position in np.argwhere(self.masks[slot])[worst])
        wrong = Deadly.ZERO if values[worst] == 0 else Deadly.INFINITE if np.isinf(values[worst]) else deadly
        return Element(self.node.run, self.eqn.invars[slot], index, wrong)


def maker(run: Run, atom: Atom) -> Maker:
    """Where an atom is made, through the calls that it came out of or went into."""
    while not isinstance(atom, compat.Literal):
        number = run.maker(atom)
        if number is not None and number not in run.inner:
            return run, atom, number
        if number is not None:
            child = run.inner[number]
            run, atom = child, child.jaxpr.outvars[Node(run, number).output(atom)]
            continue
        outside = run.operand(atom)
        if outside is None or run.parent is None or run.shards != run.parent.shards:
            break
        run, atom = run.parent, outside
    return run, atom, None


def is_written(run: Run, atom: Atom) -> bool:
    """Whether a value is a literal of the program, whatever its shape."""
    run, atom, number = maker(run, atom)
    while number is not None and primitives.of(run.jaxpr.eqns[number]).reshapes:
        run, atom, number = maker(run, run.jaxpr.eqns[number].invars[0])
    return isinstance(atom, compat.Literal)


def plain(value: np.ndarray) -> np.ndarray:
    """Real numbers as they are, complex ones as their magnitude."""
    return np.abs(value) if np.iscomplexobj(value) else value


def explain(made: Made, deadly: Deadly) -> Explained:
    """What the equation that made a deadly element says of it."""
    if made.primitive.hands_on:
        slots = list(made.values)
        return Explained(slot=slots[0] if slots else None)
    if made.primitive.sums_windows:
        return Explained(f"adds up to {wording.short(made.value)}")
    if made.primitive.bounds:
        return _bounded(made)
    if made.primitive.casts:
        return _cast(made)
    if not made.values:
        return Explained(NOTHING_SUMMED if made.primitive.sums else f"gives {wording.short(made.value)}")
    return RULES[deadly](made)


def _bounded(made: Made) -> Explained:
    same = made.holding(lambda values: values == made.value)
    if not same:
        return Explained()
    if made.is_written(same[0]) and len(made.values) > 1:
        return Explained(f"bounded to {wording.short(made.value)}")
    return Explained(slot=same[0])


def _cast(made: Made) -> Explained:
    before = made.values[0][0]
    if made.value == 0 and before != 0:
        return Explained(f"underflows to 0 in {made.dtype}")
    if made.value == 0 and made.ins[0].dtype == bool:
        return Explained(MASKED)
    rounded = made.value != before and abs(made.value) == 1
    return Explained(f"rounds to {wording.short(made.value)} in {made.dtype}") if rounded else Explained(slot=0)


def _zero(made: Made) -> Explained:
    zeros = made.holding(lambda values: values == 0)
    if made.primitive.adds:
        return _cancelled(made, zeros)
    if made.primitive.sums:
        if made.name.startswith("scatter") and 2 not in made.values:
            return Explained(NOTHING_SUMMED)
        empty = [slot for slot, values in made.values.items() if not values.any()]
        return Explained(slot=empty[0]) if empty else Explained("the terms cancel or underflow to 0")
    infinite = made.holding(np.isinf)
    if infinite:
        return Explained("gives 0 of an inf", infinite[0])
    if made.name == "div" and 0 not in zeros:
        return Explained(f"underflows to 0 in {made.dtype}")
    if zeros and made.primitive.zero_at_zero:
        return Explained(slot=zeros[0])
    if made.primitive.underflows:
        return Explained(f"underflows to 0 in {made.dtype}")
    return Explained("a pivot is 0, the matrix is singular" if made.name == "lu" else "gives 0")


def _cancelled(made: Made, zeros: list[int]) -> Explained:
    if all(not values.any() for values in made.values.values()):
        return Explained(slot=zeros[0], instead="cancels to 0" if made.name == "sub" and not made.is_written(zeros[-1]) else "")
    # An operand beside a literal is followed: in `1 - p` it is p that was not meant to be 1.
    given = [slot for slot in (0, 1) if made.is_written(slot)]
    return Explained("cancels to 0", 1 - given[0] if given else None, Deadly.EDGE)


def _negative(made: Made) -> Explained:
    negative = [slot for slot in made.holding(lambda values: values < 0) if not made.is_written(slot)]
    if made.primitive.adds or made.primitive.sums:
        sizes = sorted(np.abs(values).max() for values in made.values.values())
        if made.name == "add" and negative and sizes[0] < SLIGHT * abs(made.value):
            return Explained(slot=negative[0])
        return Explained(
            f"cancels to {wording.short(made.value)}" if abs(made.value) < CANCELLED * sizes[-1] else f"gives {wording.short(made.value)}"
        )
    return Explained(slot=negative[0]) if negative and made.is_product else Explained(f"gives {wording.short(made.value)}")


def _huge(made: Made) -> Explained:
    slot = made.largest()
    most = np.abs(made.values[slot]).max()
    if made.primitive.sums and made.values[slot].size > 1 and len(made.values) > 1:
        return Explained(f"the products add up to {wording.short(made.value)}")
    if abs(made.value) <= GROWTH * most:
        return Explained(slot=slot)
    return Explained(f"grows to {wording.short(made.value)}")


def _edge(made: Made) -> Explained:
    zeros = made.holding(lambda values: values == 0)
    same = made.holding(lambda values: np.abs(values) == abs(made.value))
    if made.primitive.sums or (made.primitive.adds and not same):
        return Explained(f"adds up to {made.value:.8g}")
    if made.primitive.adds:
        return Explained(slot=same[0]) if zeros else Explained(f"rounds to {made.value:.8g} in {made.dtype}")
    if made.name == "div" and same and abs(made.value) == 1:
        return Explained(slot=0 if made.is_written(1) else 1)
    if zeros:
        return Explained(f"gives {made.value:.8g}", zeros[0])
    if made.is_product or abs(made.value) != 1:
        return Explained(f"gives {made.value:.8g}")
    return Explained(slot=same[0]) if same else Explained(f"rounds to {made.value:.8g} in {made.dtype}")


def _infinite(made: Made) -> Explained:
    return Explained(slot=made.holding(np.isinf)[0])


RULES: dict[Deadly, Callable[[Made], Explained]] = {
    Deadly.ZERO: _zero,
    Deadly.NEGATIVE: _negative,
    Deadly.HUGE: _huge,
    Deadly.EDGE: _edge,
    Deadly.INFINITE: _infinite,
}
