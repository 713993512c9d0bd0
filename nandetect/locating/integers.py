"""Integers that did not hold a result: arithmetic that wrapped, proven with Python's own integers, and an index that was out of bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Atom, JaxprEqn
from nandetect.interpret import dependence
from nandetect.interpret.walk import Run
from nandetect.locating.cause_rules import maker
from nandetect.locating.trail import Node

Index = tuple[int, ...]
# The most equations that are looked at for one integer, the most operand elements that are multiplied out, and the most written out.
MOST_STEPS, LARGEST, WRITTEN_OUT = 60, 1 << 16, 3


@dataclass(frozen=True)
class Wrapped:
    """An element of an integer result that is not what its operation gives, and the phrase that says so."""

    node: Node
    index: Index
    reason: str


def wrapped(run: Run, atom: Atom, index: Index) -> Wrapped | None:
    """The operation that wrapped, of those that an integer element was made by; the nearest one."""
    open_ends = [(run, atom, index)]
    for _ in range(MOST_STEPS):
        if not open_ends:
            return None
        run, atom, index = open_ends.pop(0)
        run, atom, number = maker(run, atom)
        if number is None or isinstance(atom, compat.Literal) or run.shards:
            continue
        node = Node(run, number)
        if primitives.of(node.eqn).loops or len(node.eqn.outvars) != 1 or not run.knows_ins(node.eqn):
            continue
        places = _elements(node, index)
        found = _judged(node, index, places)
        if found is not None:
            return found
        for slot, elements in places.items():
            values = nonfinite.host(run.read(node.eqn.invars[slot]))
            if values.dtype.kind in "iu" and len(elements):
                # Of many, the one that says most: what wrapped is negative or large.
                worst = min(elements, key=lambda place: (int(values[place]) >= 0, -abs(int(values[place]))))
                open_ends.append((run, node.eqn.invars[slot], worst))
    return None


def _elements(node: Node, index: Index) -> dict[int, list[Index]]:
    """By operand, the elements that an element of a result was made of."""
    eqn, ins = node.eqn, node.run.ins(node.eqn)
    record = primitives.of(eqn)
    mark = np.zeros(np.shape(node.run.read(eqn.outvars[0])), bool)
    mark[index] = True
    if record.casts:
        return {0: [index]}
    slots = [slot for slot, x in enumerate(ins) if nonfinite.host(x).dtype.kind in "iu"]
    flows = dependence.RULES[record.depends](eqn, ins, 0, slots)
    masks = {flow.slot: flow.pull(mark) for flow in flows}
    return {slot: [tuple(map(int, place)) for place in np.argwhere(mask)] for slot, mask in masks.items() if mask.sum() <= LARGEST}


def _judged(node: Node, index: Index, places: dict[int, list[Index]]) -> Wrapped | None:
    """An element as wrapped, if its exact value is another one."""
    value = nonfinite.host(node.run.read(node.eqn.outvars[0]))[index]
    if value.dtype.kind not in "iu" or not places:
        return None
    operands = [[int(nonfinite.host(node.run.read(node.eqn.invars[slot]))[place]) for place in places[slot]] for slot in sorted(places)]
    exact = _exact(node.eqn, operands)
    if exact is None or exact == int(value):
        return None
    return Wrapped(node, index, f"{_written(node.eqn, operands)}{exact}, which {value.dtype} does not hold: it wraps to {int(value)}")


def _exact(eqn: JaxprEqn, operands: list[list[int]]) -> int | None:
    """What an equation makes of integers, without bounds; None for one that is no such arithmetic."""
    exact = primitives.of(eqn).exact
    whole = all(np.dtype(compat.aval(atom).dtype).kind in "iu" for atom in eqn.invars)
    return exact(eqn.params, *operands) if exact is not None and whole and all(operands) else None


def _written(eqn: JaxprEqn, operands: list[list[int]]) -> str:
    """`65536 * 65536 is `, `the sum is `."""
    infix = primitives.of(eqn).infix
    if infix and len(operands) == 2:
        return f"{operands[0][0]} {infix} {operands[1][0]} is "
    if primitives.of(eqn).casts:
        return "the number is "
    if len(operands[0]) <= WRITTEN_OUT:
        return f"{eqn.primitive.name}({', '.join(map(str, operands[0]))}) is "
    return f"{eqn.primitive.name} is "


@dataclass(frozen=True)
class OutOfBounds:
    """An index that an element was gathered by: which element of the indices it is, and the phrase that says what it exceeds."""

    index: Index
    reason: str


def out_of_bounds(node: Node, index: Index) -> OutOfBounds | None:
    """The index of an element of a `gather` that reads from outside of its operand; None where it does not."""
    run, eqn = node.run, node.eqn
    numbers, sizes = eqn.params.get("dimension_numbers"), eqn.params.get("slice_sizes")
    if run.shards or numbers is None or sizes is None or not run.knows_ins(eqn):
        return None
    indices, shape = nonfinite.host(run.read(eqn.invars[1])), np.shape(run.read(eqn.invars[0]))
    row = tuple(position for axis, position in enumerate(index) if axis not in numbers.offset_dims)
    for place, axis in enumerate(numbers.start_index_map):
        position = int(indices[(*row, place)])
        if not 0 <= position <= shape[axis] - sizes[axis]:
            counted = _counted(run, eqn.invars[1], (*row, place), shape[axis])
            told = position if counted is None else counted
            return OutOfBounds((*row, place), f"index {told} is out of bounds for axis {axis} of size {shape[axis]}")
    return None


def _counted(run: Run, atom: Atom, index: Index, size: int) -> int | None:
    """An index as it was given, where it was counted from the end: JAX adds the size to a negative one."""
    for _ in range(MOST_STEPS):
        run, atom, number = maker(run, atom)
        if number is None:
            return None
        node = Node(run, number)
        places = _elements(node, index)
        if primitives.of(node.eqn).adds and 0 in places:
            given = nonfinite.host(run.read(node.eqn.invars[0]))
            added = nonfinite.host(run.read(node.eqn.invars[1]))
            return int(given[places[0][0]]) if (added == size).all() else None
        onward = [(slot, places[slot][0]) for slot in places if len(places[slot]) == 1]
        if len(onward) != 1 or primitives.of(node.eqn).infix:
            return None
        atom, index = node.eqn.invars[onward[0][0]], onward[0][1]
    return None
