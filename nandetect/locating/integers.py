"""Integers that did not hold a result: arithmetic that wrapped, proven with Python's own integers, and an index that was out of bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Atom, JaxprEqn
from nandetect.interpret import dependence
from nandetect.interpret.walk import Run
from nandetect.locating import iterations
from nandetect.locating.iterations import Holds, Index, Loops, Place
from nandetect.locating.made import maker
from nandetect.locating.trail import Node
from nandetect.primitives import Depends

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
    open_ends: list[Place] = [(run, atom, index)]
    opened = Loops()
    for _ in range(MOST_STEPS):
        if not open_ends:
            return None
        run, atom, index = open_ends.pop(0)
        run, atom, number = maker(run, atom)
        if isinstance(atom, compat.Literal) or run.shards:
            continue
        holds = _holds(int(nonfinite.host(run.read(atom))[index]))
        if number is None:
            outside = iterations.before(run, atom, index, holds, opened)
            open_ends += [outside] if outside is not None else []
            continue
        node = Node(run, number)
        if not run.knows_ins(node.eqn):
            continue
        if primitives.of(node.eqn).loops:
            open_ends.append(iterations.into(node, node.output(atom), index, holds, opened))
            continue
        if len(node.eqn.outvars) != 1:
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


def _holds(value: int) -> Holds:
    """Of a negative integer, what is negative; else this very one."""
    return (lambda other: int(other) < 0) if value < 0 else (lambda other: int(other) == value)


def _elements(node: Node, index: Index) -> dict[int, list[Index]]:
    """By operand, the elements that an element of a result was made of."""
    eqn, ins = node.eqn, node.run.ins(node.eqn)
    record = primitives.of(eqn)
    if record.casts:
        return {0: [index]}
    if record.depends is Depends.ADDITIVE:
        return {}  # told apart by transposing, which JAX does not do of integers
    slots = [slot for slot, x in enumerate(ins) if nonfinite.host(x).dtype.kind in "iu"]
    flows = dependence.RULES[record.depends](eqn, ins, 0, slots)
    mark = nonfinite.mask_of(np.shape(node.run.read(eqn.outvars[0])), index)
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


@dataclass(frozen=True)
class Gathered:
    """A number that an element was gathered by: which element of the indices it is, and along which axis it counts up to what."""

    index: Index
    position: int
    axis: int
    last: int


def gathered(node: Node, index: Index) -> list[Gathered]:
    """The numbers that an element of a `gather` was read by."""
    run, eqn = node.run, node.eqn
    numbers, sizes = eqn.params.get("dimension_numbers"), eqn.params.get("slice_sizes")
    if run.shards or numbers is None or sizes is None or not run.knows_ins(eqn):
        return []
    indices, shape = nonfinite.host(run.read(eqn.invars[1])), np.shape(run.read(eqn.invars[0]))
    row = tuple(position for axis, position in enumerate(index) if axis not in numbers.offset_dims)
    axes = enumerate(numbers.start_index_map)
    return [Gathered((*row, place), int(indices[(*row, place)]), axis, shape[axis] - sizes[axis]) for place, axis in axes]


def read_by(node: Node, index: Index) -> list[int]:
    """The indices that an element was read by, of a `gather` or a `dynamic_slice`; empty where another equation made it."""
    starts = node.eqn.invars[1:] if node.eqn.primitive.name == "dynamic_slice" and not node.run.shards else []
    if not starts:
        return [read.position for read in gathered(node, index)]
    shape, sizes = np.shape(node.run.read(node.eqn.invars[0])), node.eqn.params["slice_sizes"]
    return [int(nonfinite.host(node.run.read(atom))) for atom, size, side in zip(starts, sizes, shape, strict=True) if size < side]


def out_of_bounds(node: Node, index: Index) -> OutOfBounds | None:
    """The index of an element of a `gather` that reads from outside of its operand; None where it does not."""
    for read in gathered(node, index):
        if not 0 <= read.position <= read.last:
            size = np.shape(node.run.read(node.eqn.invars[0]))[read.axis]
            counted = _counted(node.run, node.eqn.invars[1], read.index, size)
            told = read.position if counted is None else counted
            return OutOfBounds(read.index, f"index {told} is out of bounds for axis {read.axis} of size {size}")
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
