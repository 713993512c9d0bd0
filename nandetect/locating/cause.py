"""What made an origin's operand deadly (0, say): the one element is followed to the equation, argument or literal that explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nandetect import compat, nonfinite, primitives, wording
from nandetect.locating import called, events, integers, iterations, matrices, terms, written
from nandetect.locating.cause_rules import MASKED, NOTHING_SUMMED, explain
from nandetect.locating.events import Lens
from nandetect.locating.iterations import Holds, Loops, Place
from nandetect.locating.made import Deadly, Element, Made, maker
from nandetect.locating.told import Began, Passed, Told, growth
from nandetect.locating.trail import Node
from nandetect.nonfinite import Mask
from nandetect.records import Event

# The most causes that are told, the most equations that are passed on the way to them, and the most iterations that are entered.
MOST_EVENTS = 4
MOST_STEPS = 120
MOST_ITERATIONS = 8
# The most equations between random bits and the number made of them.
DEEPEST_DRAW = 12
# What is said where rounding made a number what it is.
LOSSES = ("underflows", "rounds")
A_CONSTANT = "a constant that the step closes over"


@dataclass(frozen=True)
class Way:
    """What the way back is gone with: what events are made with, and the loops that were opened."""

    lens: Lens
    loops: Loops


def trace(node: Node, output: int, index: tuple[int, ...], lens: Lens, opened: Loops) -> tuple[Event, ...]:
    """The events that explain what was deadly in the operands of an origin, the nearest first; empty where nothing explains it."""
    causes: list[Event] = []
    # Errors end the causes, not the report: without a cause it is still one, and an equation never met before must not lose it.
    try:
        for event in _causes(Made(node, output, index), Way(lens, opened)):
            causes.append(event)
            if len(causes) == MOST_EVENTS:
                break
    except Exception:
        return tuple(causes)
    return tuple(causes)


def _causes(made: Made, way: Way) -> Iterator[Event]:
    element = _deadly_operand(made)
    if element is None:
        yield from _of_the_whole(made, way)
        return
    many = terms.too_many(made) if made.primitive.sums else ""
    if many:
        yield _event(*made.place, many, way.lens)
    yield from _follow(element, Told(made, call=called.of(made.node)), way)


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


def _follow(element: Element, told: Told, way: Way) -> Iterator[Event]:
    """The events on the way back from an element."""
    for _ in range(MOST_STEPS):
        passed = _pass(element, told, way)
        yield from passed.events
        if passed.element is None:
            return
        element, told = passed.element, passed.told


def _pass(element: Element, told: Told, way: Way) -> Passed:
    """Go one equation back from an element."""
    run, atom, equation = maker(element.run, element.atom)
    resolved = replace(element, run=run, atom=atom)
    if equation is None or isinstance(atom, compat.Literal):
        return _outside(resolved, told, way)
    node = Node(run, equation)
    output = node.output(atom)
    if primitives.of(node.eqn).loops:
        return _in_a_loop(resolved, node, iterations.into(node, output, resolved.index, _holds(resolved), way.loops), told, way)
    made = Made(node, output, resolved.index, resolved.beside)
    if resolved.deadly is Deadly.INFINITE and not made.holding(np.isinf):
        born = events.make(node, output, _mark(node, output, resolved.index), way.lens)
        return Passed((born,), _deadly_operand(made), told)
    return _explained(made, resolved.deadly, told, way)


def _outside(element: Element, told: Told, way: Way) -> Passed:
    """From what no equation of a run makes: to what the shards were given, out of a loop or into an iteration before; else its event."""
    handed_out = _before_the_shards(element)
    if handed_out is not None:
        return Passed(element=handed_out, told=told)
    node = iterations.around(element.run, element.atom)
    if node is None:
        return Passed(tuple(_given(element, told, way.lens)))
    began = iterations.began_with(element.run, element.atom, element.index, way.loops)
    here = Began(began, element.run.order[-1] + 1) if began is not None else None
    if here is not None and here.grew(element.deadly, element.value) and told.grew is not None and growth(told.grew) > 1:
        return Passed((_event(*told.grew.place, f"grows to {wording.short(told.grew.value)}{here.said}", way.lens),))
    place = iterations.before(element.run, element.atom, element.index, _holds(element), way.loops)
    assert place is not None
    run, _, _ = place
    told = replace(told, began=Began(began, run.order[-1] + 1) if began is not None and run is not node.run else None)
    return _in_a_loop(element, node, place, told, way)


def _holds(element: Element) -> Holds:
    """Whether another value is deadly as an element's is: negative, or the same number."""
    if element.deadly is Deadly.NEGATIVE:
        return lambda value: bool(np.real(value) < 0)
    own = nonfinite.host(element.run.read(element.atom))[element.index]
    return lambda value: bool(value == own)


def _in_a_loop(element: Element, node: Node, place: Place, told: Told, way: Way) -> Passed:
    """Go on in an iteration of a loop, or before it; the loop is told where that is no way back, or where it began with a literal."""
    run, atom, index = place
    came = Element(run, atom, index, element.deadly)
    inside = run is not node.run
    entered = told.entered + inside
    if entered > MOST_ITERATIONS or not _holds(element)(nonfinite.host(run.read(atom))[index]):
        return Passed((_event(node, 0, None, f"gives {wording.short(element.value)} after many iterations", way.lens),))
    if isinstance(atom, compat.Literal) and not inside:
        return Passed((_event(node, 0, None, f"begins with {wording.short(came.value)}, which is written there", way.lens),))
    return Passed((), came, replace(told, grew=None, entered=entered))


def _explained(made: Made, deadly: Deadly, told: Told, way: Way) -> Passed:
    """What the equation that made an element says of it, and the element of an operand to go on with."""
    explained = explain(made, deadly)
    overflow = integers.wrapped(made.node.run, made.eqn.invars[0], made.index) if made.takes_integers else None
    if overflow is not None:
        return Passed((_event(overflow.node, 0, overflow.index, overflow.reason, way.lens),))
    told = told.after(made, explained)
    if made.primitive.factors and deadly is Deadly.ZERO:
        return _factored(made, explained.reason, told, way)
    slot = explained.slot
    if slot is not None and explained.others and not told.trying:
        slot = min((slot, *explained.others), key=lambda slot: _worth(made.element(slot, explained.deadly or deadly), told, way))
    rounded = () if told.trying else [other for other in explained.rounded if not _worth(made.element(other, deadly), told, way)]
    if rounded:
        return Passed((), made.element(rounded[0], deadly), told)
    following = None if slot is None else made.element(slot, explained.deadly or deadly)
    draw = following and _draw(following)
    if draw:
        return Passed((replace(_event(draw, 0, None, "drawn at random", way.lens), index=made.index[bool(made.node.run.shards) :]),))
    if not explained.reason:
        return Passed((), following, told)
    return Passed((_told(made, deadly, explained.reason, told, way.lens),), following, told)


def _told(made: Made, deadly: Deadly, reason: str, told: Told, lens: Lens) -> Event:
    """The event of what an equation says, with what the way there adds to it."""
    # A mask that is summed counts what it selects.
    counts = told.summed if reason == MASKED else None
    if counts:
        return _event(*counts.place, NOTHING_SUMMED, lens)
    if reason == MASKED:
        condition = written.condition(made.node, made.index, lens)
        reason += f": {condition}" if condition else ""
    if told.began is not None and told.began.grew(deadly, made.value):
        reason += told.began.said
    if told.call is not None:
        reason += f", inside {told.call.said}"
    return _event(*made.place, reason, lens)


def _factored(made: Made, reason: str, told: Told, way: Way) -> Passed:
    """What is said of a 0 that a factorisation gave: what is wrong with its matrix, and where that was made."""
    singular = matrices.singular(made, way.loops)
    if singular is None or singular.node is None:
        event = _event(*made.place, reason + (f": {singular.reason}" if singular else ""), way.lens)
        return Passed((event,), singular and singular.element, told)
    computed = _event(singular.node, 0, None, f"gives that matrix: {singular.reason}", way.lens)
    return Passed((_event(*made.place, reason, way.lens), computed))


def _worth(element: Element, told: Told, way: Way) -> int:
    """How little the way back from an element says: nothing less than where rounding made it, more where it was given or written."""
    found = list(_follow(element, replace(told, trying=True), way))
    if not found:
        return 4
    if any(word in found[-1].reason for word in LOSSES):
        return 0
    return 2 if found[-1].primitive == "<input>" else 3 if "written there" in found[-1].reason else 1


def _event(node: Node, output: int, index: tuple[int, ...] | None, reason: str, lens: Lens) -> Event:
    """The event of a finite element."""
    mask = _mark(node, output, index) if index is not None else None
    record = primitives.of(node.eqn)
    # Of what was summed, chosen, moved, carried or taken apart the reason says more than the range of all of it.
    brief = record.sums or record.sums_windows or record.selects or record.hands_on or record.reshapes or record.loops or record.factors
    return replace(events.make(node, output, mask, lens, brief=brief), value="finite", reason=reason)


def _of_the_whole(made: Made, way: Way) -> Iterator[Event]:
    """What broke an origin that none of its floating operands did: an index that had wrapped, a whole matrix."""
    outside = integers.out_of_bounds(made.node, made.index)
    overflow = integers.wrapped(made.node.run, made.eqn.invars[1], outside.index) if outside is not None else None
    if overflow is not None:
        yield _event(overflow.node, 0, overflow.index, overflow.reason, way.lens)
    if made.name == "cholesky":
        found = matrices.indefinite(made, way.loops)
        yield replace(_event(found.node, found.output, found.index, found.reason, way.lens), operands=())


def _mark(node: Node, output: int, index: tuple[int, ...]) -> Mask:
    """A mask over an output that marks one element."""
    return nonfinite.mask_of(np.shape(node.run.read(node.eqn.outvars[output])), index)


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
    is_constant = atom not in run.jaxpr.invars
    argument = A_CONSTANT if is_constant else lens.names.of(run, atom)
    taken_up = _event(*told.last.place, "", lens).source if is_constant and told.last is not None else None
    value = run.read(atom)
    held, read_by = wording.short(element.value), f", read by index {', '.join(map(str, told.read))}" if told.read else ""
    yield Event(
        primitive="<input>",
        value="finite" if np.isfinite(element.value) else nonfinite.kind_of(nonfinite.host(value)[element.index]),
        reason=f"it holds {held} at {list(element.index)}" if is_constant else f"{held} in the input{read_by}",
        index=element.index,
        size=int(np.prod(np.shape(value), dtype=np.int64)),
        shape=tuple(np.shape(value)),
        dtype=str(getattr(value, "dtype", "")),
        operands=(nonfinite.describe(value, element.index, argument),),
        argument=argument,
        source=taken_up,
    )


def _before_the_shards(element: Element) -> Element | None:
    """For an argument of a sharded body, the same element of what was handed out to the shards."""
    run, atom = element.run, element.atom
    outside = None if isinstance(atom, compat.Literal) else run.operand(atom)
    if outside is None or isinstance(atom, compat.Literal) or run.parent is None or run.parent.shards or run.spread is None:
        return None
    mask = nonfinite.mask_of(np.shape(run.read(atom)), element.index)
    marked = run.spread.join(mask, run.operands[run.jaxpr.invars.index(atom)])
    return replace(element, run=run.parent, atom=outside, index=nonfinite.first(marked))


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
