"""What made an origin's finite operand deadly: the one element is followed back to the equation, argument or literal that explains it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from nandetect import compat, probe
from nandetect.event import Lens
from nandetect.moves import MOVES
from nandetect.records import Event
from nandetect.trail import Node, flows_of
from nandetect.walk import LOOPS, Run

MOST_EVENTS = 4
MOST_STEPS = 120
# A result that is this much larger than every operand was made large here; a smaller one was handed on.
GROWTH = 4.0
# A difference that is this much smaller than what it is the difference of is what rounding left of it.
CANCELLED = 1e-3

SUMS = frozenset({"reduce_sum", "dot_general", "conv_general_dilated", "scatter-add", "scatter_add", "reduce_window_sum", "cumsum"})
ADDS = frozenset({"add", "sub", "add_any"})
BOUNDS = frozenset({"max", "min", "clamp"})
SELECTS = frozenset({"select_n", "gather", "scatter", "dynamic_update_slice", "concatenate", "pad"})
CASTS = frozenset({"convert_element_type", "reduce_precision"})
# Where the operand is 0 the result is, by the mathematics and not by underflow.
ZERO_AT_ZERO = frozenset({"sqrt", "abs", "neg", "sin", "tan", "tanh", "asin", "atan", "sinh", "asinh", "expm1", "log1p", "erf", "sign", "cbrt"})
POSITIVE = frozenset({"exp", "exp2", "logistic", "erfc"})
LEVELS_OFF = frozenset({"tanh", "logistic", "erf", "exp", "exp2", "cos", "sin", "sqrt", "integer_pow", "square", "pow", "log", "rsqrt"})
AT_AN_EDGE = frozenset({"acos", "asin", "atanh", "acosh", "erf_inv"})
AT_OR_BELOW_ZERO = frozenset({"log", "sqrt", "rsqrt", "lgamma", "digamma", "integer_pow"})
DRAWN = frozenset({"random_bits", "threefry2x32"})
A_CONSTANT = "a constant that the step closes over"


class Deadly(Enum):
    """What is wrong with a finite value; `INFINITE` is an inf that was given, and that made a NaN."""

    ZERO = 0
    NEGATIVE = 1
    HUGE = 2
    EDGE = 3
    INFINITE = 4


@dataclass(frozen=True)
class Element:
    """One element of a value in a run, and what is wrong with it."""

    run: Run
    atom: Any
    index: tuple[int, ...]
    deadly: Deadly

    @property
    def value(self) -> float:
        return float(probe.host(self.run.read(self.atom))[self.index].real)


class Made:
    """One element as an equation made it, with the elements of each floating operand that it was made from."""

    def __init__(self, node: Node, output: int, index: tuple[int, ...]):
        self.node, self.output, self.index = node, output, index
        self.name: str = node.eqn.primitive.name
        self.value = float(probe.host(node.run.read(node.eqn.outvars[output]))[index].real)

    @cached_property
    def masks(self) -> dict[int, np.ndarray]:
        run, eqn = self.node.run, self.node.eqn
        mark = np.zeros(np.shape(run.read(eqn.outvars[self.output])), bool)
        mark[self.index] = True
        ins = run.ins(eqn)
        pulled = {flow.slot: flow.pull(mark) for flow in flows_of(run, eqn, ins, self.output)}
        return {slot: mask for slot, mask in pulled.items() if mask.any() or self.name in SUMS}

    @cached_property
    def values(self) -> dict[int, np.ndarray]:
        """The values of those elements, by operand."""
        ins = self.node.run.ins(self.node.eqn)
        return {slot: probe.host(ins[slot])[mask].real.astype(np.float64) for slot, mask in self.masks.items()}

    @property
    def dtype(self) -> str:
        return str(self.node.eqn.outvars[self.output].aval.dtype)

    def is_literal(self, slot: int) -> bool:
        return isinstance(self.node.eqn.invars[slot], compat.Literal)

    def prefer_variable(self, slots: list[int]) -> int:
        return next((slot for slot in slots if not self.is_literal(slot)), slots[0])

    def largest(self) -> int:
        """The operand that holds the largest magnitude; a variable before a literal."""
        sizes = {slot: float(np.abs(values).max()) for slot, values in self.values.items() if values.size}
        most = max(sizes.values())
        return self.prefer_variable([slot for slot, size in sizes.items() if size == most])

    def element(self, slot: int, deadly: Deadly) -> Element:
        """The element of an operand to go on with: the zero, the inf, the most negative, the largest."""
        places, values = np.argwhere(self.masks[slot]), self.values[slot]
        if deadly is Deadly.ZERO:
            at = np.argmin(np.abs(values))
        elif deadly is Deadly.NEGATIVE:
            at = np.argmin(values)
        else:
            at = np.argmax(np.abs(values))
        found = deadly
        if values[at] == 0:
            found = Deadly.ZERO
        elif np.isinf(values[at]):
            found = Deadly.INFINITE
        return Element(self.node.run, self.node.eqn.invars[slot], tuple(int(i) for i in places[at]), found)


@dataclass(frozen=True)
class Step:
    """What an equation says of the element that it made (nothing, where it only passed it on), and which operand to go on with."""

    reason: str = ""
    slot: int | None = None
    deadly: Deadly = Deadly.ZERO


def trace(node: Node, output: int, index: tuple[int, ...], lens: Lens) -> tuple[Event, ...]:
    """The events that explain what was deadly in the operands of an origin, the nearest first; empty where nothing explains it."""
    # A report without a cause is still a report; one that is lost to a primitive never met before is not.
    try:
        start = _deadly_operand(Made(node, output, index))
        return _follow(start, node, lens) if start else ()
    except Exception:
        return ()


def _deadly_operand(made: Made) -> Element | None:
    values = {slot: found for slot, found in made.values.items() if found.size}
    infinite = [slot for slot, found in values.items() if np.isinf(found).any()]
    if infinite:
        return made.element(made.prefer_variable(infinite), Deadly.INFINITE)
    if made.name == "triangular_solve":
        return _pivot(made)
    if not values or made.name in MOVES or made.name in SELECTS or _is_matrix(made):
        return None
    if made.name == "div":
        return made.element(1, Deadly.ZERO) if values[1][0] == 0 else made.element(0, Deadly.HUGE)
    first = values[min(values)][0]
    if made.name in AT_AN_EDGE or (made.name == "log1p" and first == -1):
        return made.element(0, Deadly.EDGE)
    if made.name in AT_OR_BELOW_ZERO | {"log1p", "pow"} and first <= 0:
        return made.element(0, Deadly.ZERO if first == 0 else Deadly.NEGATIVE if made.name != "integer_pow" else Deadly.HUGE)
    return made.element(made.largest(), Deadly.HUGE)


def _is_matrix(made: Made) -> bool:
    return made.name in ("cholesky", "eigh", "eig", "lu", "qr", "geqrf", "svd", "schur")


def _pivot(made: Made) -> Element | None:
    """The zero on the diagonal of a triangular matrix."""
    matrix = probe.host(made.node.run.read(made.node.eqn.invars[0]))
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1) == 0
    batch = made.index[: matrix.ndim - 2]
    zero = np.flatnonzero(diagonal[batch])
    if not zero.size:
        return None
    return Element(made.node.run, made.node.eqn.invars[0], (*batch, int(zero[0]), int(zero[0])), Deadly.ZERO)


def _follow(element: Element, origin: Node, lens: Lens) -> tuple[Event, ...]:
    events: list[Event] = []
    chosen: Made | None = None
    summed: Made | None = None
    for _ in range(MOST_STEPS):
        if isinstance(element.atom, compat.Literal):
            return (*events, *([_event(chosen, f"{_number(element.value)} is written there", lens)] if chosen else []))
        made = _maker(element)
        if made is None:
            moved = _outside(element)
            if moved is None:
                return (*events, *_given(element, lens))
            element = moved
            continue
        if made.name in LOOPS:
            return (*events, _looped(made, lens))
        if made.node.run.jaxpr.eqns[made.node.number].primitive.name == "shard_map":
            return tuple(events)
        drawn = _drawn(made)
        if drawn is not None:
            return (_event(drawn, f"{_number((events and _result(events)) or element.value)} was drawn at random", lens),)
        step = _step(made, element.deadly)
        if made.name in SELECTS | BOUNDS:
            chosen = made
        if made.name in SUMS:
            summed = made
        if step.reason:
            at = summed if step.reason == NOTHING_COUNTED and summed else made
            events.append(_event(at, step.reason, lens))
        if step.slot is None or len(events) == MOST_EVENTS:
            break
        element = made.element(step.slot, step.deadly)
    return tuple(events)
