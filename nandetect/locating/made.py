"""One element of a value as an equation made it, and what is wrong with it: the steps that the way back from an origin takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Atom
from nandetect.interpret.dependence import Flow
from nandetect.interpret.shards import flows_of
from nandetect.interpret.walk import Run
from nandetect.locating.trail import Node
from nandetect.nonfinite import Mask

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
    """One element of a variable or literal in a run, and what is wrong with it.

    `beside` are the elements that have to be 0 with it: the terms of a sum that is.
    """

    run: Run
    atom: Atom
    index: tuple[int, ...]
    deadly: Deadly
    beside: Mask | None = None

    @property
    def value(self) -> float:
        """The element itself; of a complex one the magnitude."""
        return float(plain(nonfinite.host(self.run.read(self.atom))[self.index]))


class Made:
    """One element as an equation made it, with the elements of each floating operand that it was made from."""

    def __init__(self, node: Node, output: int, index: tuple[int, ...], beside: Mask | None = None):
        self.node, self.output, self.index, self.beside = node, output, index, beside
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
        return self._pulled(nonfinite.mask_of(np.shape(self.node.run.read(self.eqn.outvars[self.output])), self.index))

    @cached_property
    def _flows(self) -> list[Flow]:
        return flows_of(self.node.run, self.eqn, self.ins, self.output)

    def _pulled(self, mask: Mask) -> dict[int, Mask]:
        """By operand, which of its elements some of the result's were made from."""
        if self.primitive.casts:
            return {0: mask}  # also from integers and booleans, which no non-finite value flows through
        return {flow.slot: flow.pull(mask) for flow in self._flows}

    @cached_property
    def _widened(self) -> dict[int, Mask]:
        """By operand, which of its elements have to be 0 too: those that `beside` was made from; of a sum all its terms."""
        if self.beside is not None:
            return self._pulled(self.beside)
        return self.masks if self.primitive.sums and self.value == 0 else {}

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

    def all_zero(self, slots: list[int]) -> int:
        """Of operands that are 0 here the one that is 0 wherever it has to be."""
        whole = [slot for slot in slots if slot in self._widened and not nonfinite.host(self.ins[slot])[self._widened[slot]].any()]
        return whole[0] if whole and self.beside is not None else slots[0]

    def element(self, slot: int, deadly: Deadly) -> Element:
        """The element of an operand to go on with: of those in `values` the one nearest to 0, the most negative or the largest."""
        values = self.values[slot]
        score = {Deadly.ZERO: -np.abs(values), Deadly.NEGATIVE: -values}.get(deadly, np.abs(values))
        worst = int(np.argmax(score))
        index = tuple(int(position) for position in np.argwhere(self.masks[slot])[worst])
        wrong = Deadly.ZERO if values[worst] == 0 else Deadly.INFINITE if np.isinf(values[worst]) else deadly
        return Element(self.node.run, self.eqn.invars[slot], index, wrong, self._widened.get(slot) if wrong is Deadly.ZERO else None)


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
