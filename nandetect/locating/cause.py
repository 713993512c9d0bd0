"""What made an origin's operand deadly (0, say): the one element is followed to the equation, argument or literal that explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nandetect import compat, nonfinite, primitives, wording
from nandetect.interpret import loops
from nandetect.locating import events, integers, written
from nandetect.locating.cause_rules import MASKED, NOTHING_SUMMED, Deadly, Element, Explained, Made, explain, maker
from nandetect.locating.events import Lens
from nandetect.locating.trail import Node
from nandetect.nonfinite import Mask
from nandetect.records import Event

# The most causes that are told, and the most equations that are passed on the way to them.
MOST_EVENTS = 4
MOST_STEPS = 120
# The largest matrix whose eigenvalues are computed, and the most equations between random bits and the number made of them.
LARGEST_MATRIX = 512
DEEPEST_DRAW = 12
A_CONSTANT = "a constant that the step closes over"


def trace(node: Node, output: int, index: tuple[int, ...], lens: Lens) -> tuple[Event, ...]:
    """The events that explain what was deadly in the operands of an origin, the nearest first; empty where nothing explains it."""
    causes: list[Event] = []
    # Errors end the causes, not the report: without a cause it is still one, and an equation never met before must not lose it.
    try:
        made = Made(node, output, index)
        element = _deadly_operand(made)
        for event in _follow(element, lens) if element else _of_the_whole(made, lens):
            causes.append(event)
            if len(causes) == MOST_EVENTS:
                break
    except Exception:
        return tuple(causes)
    return tuple(causes)


def _deadly_operand(made: Made) -> Element | None:
    """The operand element that broke an origin; None where it is a whole matrix, or nothing that can be told."""
    values = made.values
    if made.name == "triangular_solve":
        return _pivot(made)
    if not values or made.primitive.hands_on or made.primitive.factors:
        return None
    infinite = made.holding(np.isinf)
    if infinite:
        return made.element(infinite[0], Deadly.INFINITE)
    if made.name == "div":
        top, bottom = values[0][0], values[1][0]
        if bottom == 0:
            return made.element(1, Deadly.ZERO)
        return made.element(0, Deadly.HUGE) if abs(top * bottom) > 1 else None
    first = values[min(values)][0]
    if made.primitive.has_ends or (made.name == "log1p" and first == -1):
        return made.element(0, Deadly.EDGE)
    if made.primitive.positive_only and first < 0:
        return made.element(0, Deadly.NEGATIVE)
    return made.element(0 if first == 0 else made.largest(), Deadly.HUGE)


def _pivot(made: Made) -> Element | None:
    """The zero on the diagonal of a triangular matrix."""
    matrix = nonfinite.host(made.ins[0])
    batch = made.index[: matrix.ndim - 2]
    zeros = np.flatnonzero(np.diagonal(matrix[batch]) == 0)
    if not zeros.size:
        return None
    return Element(made.node.run, made.eqn.invars[0], (*batch, int(zeros[0]), int(zeros[0])), Deadly.ZERO)


@dataclass(frozen=True)
class Told:
    """Equations already passed that may tell better what happened than the one at which the way ends.

    `last` is the last one passed; `chosen` chose the element among its operands, `summed` summed it, and since then it was only moved;
    `equal` is a difference of two equal operands.
    """

    last: Made | None = None
    chosen: Made | None = None
    summed: Made | None = None
    equal: Made | None = None

    def after(self, made: Made, explained: Explained) -> Told:
        """The same with one more equation passed."""
        same = made.primitive.hands_on or made.primitive.reshapes
        chosen = made if made.primitive.chooses else self.chosen if made.primitive.reshapes else None
        summed = made if made.primitive.sums else self.summed if same else None
        return Told(made, chosen, summed, made if explained.instead else self.equal)


@dataclass(frozen=True)
class Passed:
    """What an equation, loop or argument that was passed tells, and the element to go on with, if any."""

    events: tuple[Event, ...] = ()
    element: Element | None = None
    told: Told = Told()


def _follow(element: Element, lens: Lens) -> Iterator[Event]:
    """The events on the way back from an element."""
    told = Told()
    for _ in range(MOST_STEPS):
        passed = _pass(element, told, lens)
        yield from passed.events
        if passed.element is None:
            return
        element, told = passed.element, passed.told


def _pass(element: Element, told: Told, lens: Lens) -> Passed:
    """Go one equation back from an element."""
    run, atom, equation = maker(element.run, element.atom)
    resolved = replace(element, run=run, atom=atom)
    if equation is None or isinstance(atom, compat.Literal):
        outside = _before_the_shards(resolved) or _before_the_loop(resolved, lens)
        if isinstance(outside, Element):
            return Passed(element=outside, told=told)
        return Passed((outside,) if outside else tuple(_given(resolved, told, lens)))
    node = Node(run, equation)
    output = node.output(atom)
    if primitives.of(node.eqn).loops:
        return Passed((_from_a_loop(node, output, resolved, lens),))
    made = Made(node, output, resolved.index)
    if resolved.deadly is Deadly.INFINITE and not made.holding(np.isinf):
        born = events.make(node, output, _mark(node, output, resolved.index), lens)
        return Passed((born,), _deadly_operand(made), told)
    return _explained(made, resolved.deadly, told, lens)


def _explained(made: Made, deadly: Deadly, told: Told, lens: Lens) -> Passed:
    """What the equation that made an element says of it, and the element of an operand to go on with."""
    explained = explain(made, deadly)
    overflow = integers.wrapped(made.node.run, made.eqn.invars[0], made.index) if made.takes_integers else None
    if overflow is not None:
        return Passed((_event(overflow.node, 0, overflow.index, overflow.reason, lens),))
    told = told.after(made, explained)
    following = None if explained.slot is None else made.element(explained.slot, explained.deadly or deadly)
    draw = following and _draw(following)
    if draw:
        return Passed((replace(_event(draw, 0, None, "drawn at random", lens), index=made.index[bool(made.node.run.shards) :]),))
    if not explained.reason:
        return Passed((), following, told)
    # A mask that is summed counts what it selects.
    counts = told.summed if explained.reason == MASKED else None
    event = _event(*(counts or made).place, NOTHING_SUMMED if counts else explained.reason, lens)
    return Passed((event,), following, told)


def _event(node: Node, output: int, index: tuple[int, ...] | None, reason: str, lens: Lens) -> Event:
    """The event of a finite element."""
    mask = _mark(node, output, index) if index is not None else None
    brief = primitives.of(node.eqn).sums_windows
    return replace(events.make(node, output, mask, lens, brief=brief), value="finite", reason=reason)


def _of_the_whole(made: Made, lens: Lens) -> Iterator[Event]:
    """What broke an origin that none of its floating operands did: an index that had wrapped, a whole matrix."""
    outside = integers.out_of_bounds(made.node, made.index)
    overflow = integers.wrapped(made.node.run, made.eqn.invars[1], outside.index) if outside is not None else None
    if overflow is not None:
        yield _event(overflow.node, 0, overflow.index, overflow.reason, lens)
    yield from _matrix(made, lens)


def _matrix(made: Made, lens: Lens) -> Iterator[Event]:
    """What is wrong with a whole matrix that has no Cholesky factor."""
    matrix = nonfinite.host(made.ins[0])
    if made.name != "cholesky" or matrix.shape[-1] > LARGEST_MATRIX:
        return
    factored = nonfinite.in_double(matrix[made.index[:-2]])
    smallest = float(np.linalg.eigvalsh(factored).min())
    if smallest <= 0:
        reason = f"the smallest eigenvalue of its matrix is {wording.short(smallest)}"
        yield replace(_event(*made.place, reason, lens), operands=())


def _mark(node: Node, output: int, index: tuple[int, ...]) -> Mask:
    """A mask over an output that marks one element."""
    mask = np.zeros(np.shape(node.run.read(node.eqn.outvars[output])), bool)
    mask[index] = True
    return mask


def _given(element: Element, told: Told, lens: Lens) -> Iterator[Event]:
    """The event of an element that no equation made: a literal, told by the equation that took it up, a constant, or an argument."""
    run, atom = element.run, element.atom
    if told.equal is not None:
        yield _event(*told.equal.place, "cancels to 0", lens)
        return
    if isinstance(atom, compat.Literal):
        writer = told.chosen or told.last
        if writer is not None:
            chosen = written.selected(writer.node, writer.index, lens)
            yield _event(*writer.place, f"{wording.short(element.value)} is written there" + (f", {chosen}" if chosen else ""), lens)
        return
    if run.parent is not None and atom in run.jaxpr.invars:
        return
    argument = A_CONSTANT if atom not in run.jaxpr.invars else lens.names.of(run, atom)
    value = run.read(atom)
    yield Event(
        primitive="<input>",
        value="finite" if np.isfinite(element.value) else nonfinite.kind_of(nonfinite.host(value)[element.index]),
        reason=f"{wording.short(element.value)} in the input",
        index=element.index,
        size=int(np.prod(np.shape(value), dtype=np.int64)),
        shape=tuple(np.shape(value)),
        dtype=str(getattr(value, "dtype", "")),
        operands=(nonfinite.describe(value, element.index, argument),),
        argument=argument,
    )


def _before_the_shards(element: Element) -> Element | None:
    """For an argument of a sharded body, the same element of what was handed out to the shards."""
    run, atom = element.run, element.atom
    outside = None if isinstance(atom, compat.Literal) else run.operand(atom)
    if outside is None or isinstance(atom, compat.Literal) or run.parent is None or run.parent.shards or run.spread is None:
        return None
    mask = np.zeros(np.shape(run.read(element.atom)), bool)
    mask[element.index] = True
    marked = run.spread.join(mask, run.operands[run.jaxpr.invars.index(atom)])
    return replace(element, run=run.parent, atom=outside, index=nonfinite.first(marked))


def _before_the_loop(element: Element, lens: Lens) -> Element | Event | None:
    """For an argument of a loop's iteration, the same element outside the loop; for one that earlier iterations made, the event of that."""
    run = element.run
    if run.entry is None or not primitives.named(run.entry[0]).loops or run.parent is None or element.atom not in run.jaxpr.invars:
        return None
    node = Node(run.parent, run.path[-2])
    loop = loops.open_loop(node.eqn, node.run.ins(node.eqn))
    argument, row = list(run.jaxpr.invars).index(element.atom), run.entry[1]
    consts = len(loop.consts)
    if argument < consts:
        return replace(element, run=run.parent, atom=node.eqn.invars[loop.first_const + argument])
    carried = argument < consts + loop.carry
    if carried and run.order[-1] > 0:
        made = events.make(node, argument - consts, _mark(node, argument - consts, element.index), lens, brief=True)
        reason = f"{wording.short(element.value)} was carried into iteration {row}"
        return replace(made, value="finite", reason=reason, context=(*made.context, run.entry))
    axis = int(bool(run.shards))
    index = element.index if carried else (*element.index[:axis], row, *element.index[axis:])
    return replace(element, run=run.parent, atom=node.eqn.invars[loop.first_carry + argument - consts], index=index)


def _from_a_loop(node: Node, output: int, element: Element, lens: Lens) -> Event:
    """A loop that came out with the element: where it is a row of stacked results, in that iteration."""
    loop = loops.open_loop(node.eqn, node.run.ins(node.eqn))
    made = events.make(node, output, _mark(node, output, element.index), lens, brief=True)
    when, context = "", made.context
    if output >= loop.carry:
        row = element.index[bool(node.run.shards)]
        when, context = f" of iteration {row}", (*context, (loop.name, row))
    return replace(made, value="finite", reason=f"{wording.short(element.value)} is the result{when}", context=context)


def _draw(element: Element) -> Node | None:
    """The equation that drew random bits, where the element is nothing but those bits read as a number."""
    run, _, equation = maker(element.run, element.atom)
    if equation is None or run.jaxpr.eqns[equation].primitive.name != "bitcast_convert_type":
        return None
    for _ in range(DEEPEST_DRAW):
        run, _, equation = maker(run, run.jaxpr.eqns[equation].invars[0])
        if equation is None:
            return None
        if primitives.of(run.jaxpr.eqns[equation]).draws:
            return Node(run, equation)
    return None
