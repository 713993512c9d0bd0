"""A non-finite number that stands in the program's text: where it was taken up or chosen, and by which condition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nandetect import compat, nonfinite, ownership, primitives, wording
from nandetect.compat import Atom, JaxprEqn
from nandetect.interpret.movement import MOVES
from nandetect.interpret.shards import of_one
from nandetect.interpret.walk import Run
from nandetect.locating import events
from nandetect.locating.events import Lens
from nandetect.locating.made import maker
from nandetect.locating.trail import Arrival, Node, Trail
from nandetect.nonfinite import Mask
from nandetect.program import sources
from nandetect.program.trace import Program
from nandetect.records import Event, Frame

Index = tuple[int, ...]


def event(trail: Trail, literal: Arrival, node: Node, lens: Lens) -> tuple[Event, Node]:
    """The event of a literal, and its equation: the selection that chose it, else the one that took it up."""
    node, before = _selection(trail, node)
    selects = primitives.of(node.eqn).selects
    output, mask = next(iter(trail.asked.get(node, {}).items()), (0, None))
    if mask is not None and selects and before is not None:
        mask = _chosen(node, mask, before)
    made = events.make(node, output, mask, lens)
    shard = [number for kind, number in made.context if kind == "shard"] if node.run.shards else []
    condition = selected(node, (*shard, *made.index), lens) if selects else _branch(literal.run, lens)
    context = (*made.context, literal.run.entry) if literal.run is not node.run and literal.run.entry else made.context
    # A maximum of nothing is as good as written.
    reason = "nothing is compared there" if primitives.of(node.eqn).bounds else "written there as a literal"
    reason += f": {condition}" if condition else ""
    return replace(made, reason=reason, context=context), node


def returned(program: Program, literal: Arrival) -> Event:
    """The event of a literal that the program returns as it is written, at the line of its function."""
    info = getattr(program.jaxpr, "debug_info", None)
    file, line = getattr(info, "func_filename", None), getattr(info, "func_lineno", None)
    source = None
    if file and line and ownership.is_users(file):
        frame = Frame(file=file, line=line, function=getattr(info, "func_name", ""), code=sources.code_at(file, line))
        source = sources.source_of([frame])
    given = events.arrival("", literal.value, literal.mask)
    return replace(given, primitive="<literal>", reason="written there as a literal", source=source, operands=(), argument=None)


def selected(node: Node, index: Index, lens: Lens) -> str:
    """By which condition a selection chose an element: `x > 0` is False: -1.0 > 0.0; empty where that is not known."""
    run, atom = node.run, node.eqn.invars[0]
    if not run.knows(atom) or not primitives.of(node.eqn).selects:
        return ""
    if run.shards:
        run, index = of_one(run, index[0]), index[1:]
    return _condition(run, atom, _in_operand(index, np.shape(run.read(atom))), lens)


def condition(node: Node, index: Index, lens: Lens) -> str:
    """What the truth value says that an equation made a number of: `ids > 0` is False: 0 > 0; empty where that is not known."""
    return "" if node.run.shards else _condition(node.run, node.eqn.invars[0], index, lens)


def _selection(trail: Trail, node: Node) -> tuple[Node, Node | None]:
    """The selection that a literal came to by moves alone, and the equation before it; the equation itself where it came to none."""
    before = None
    for step in trail.chain(node):
        record = primitives.of(step.eqn)
        if record.selects:
            return step, before
        if not (record.reshapes or record.same):
            break
        before = step
    return node, None


def _chosen(node: Node, mask: Mask, before: Node) -> Mask:
    """Those of the asked-for elements of a selection that it took from what another equation made."""
    run, eqn = node.run, node.eqn
    for slot, atom in enumerate(eqn.invars[1:]):
        made_in, _, number = maker(run, atom)
        if number is not None and Node(made_in, number) == before:
            which = np.asarray(run.read(eqn.invars[0])).astype(np.int64)
            own = mask & (which == slot)
            return own if own.any() else mask
    return mask


def _branch(run: Run | None, lens: Lens) -> str:
    """Why the innermost branch ran that a run stands in; empty where it stands in none."""
    while run is not None and run.parent is not None and not run.parent.shards:
        if run.entry is not None and run.entry[0] == "cond":
            return _condition(run.parent, run.eqns[-1].invars[0], (), lens) or f"branch {run.entry[1]} was taken"
        run = run.parent
    return ""


def _condition(run: Run, atom: Atom, index: Index, lens: Lens) -> str:
    """`n > 0` is False: 0 > 0, of an element of a condition; empty where it is a bare literal."""
    while True:
        run, atom, number = maker(run, atom)
        value = nonfinite.host(run.read(atom))[index]
        if number is None:
            break
        eqn = run.jaxpr.eqns[number]
        onward = _onward(run, eqn, index)
        if onward is None:
            break
        atom, index = onward
    name = lens.names.of(run, atom)
    compared = _compared(run, run.jaxpr.eqns[number], index) if number is not None and value.dtype == bool else ""
    told = f"`{name}`" if name else compared
    if not told or value.dtype != bool:
        return ""
    return f"{told} is {bool(value)}" + (f": {compared}" if name and compared and compared != name else "")


def _onward(run: Run, eqn: JaxprEqn, index: Index) -> tuple[Atom, Index] | None:
    """The operand, and its element, that an element of a condition was handed on from, or that decided it."""
    record, ins = primitives.of(eqn), eqn.invars
    if record.casts:
        return ins[0], index
    if eqn.primitive.name in MOVES and len(ins) == 1:
        shape = np.shape(run.read(ins[0]))
        numbers = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
        position = int(MOVES[eqn.primitive.name](eqn.params, numbers)[0][index])
        return ins[0], tuple(int(number) for number in np.unravel_index(position, shape)) if shape else ()
    if record.joins is None:
        return None
    if record.axes is not None:
        return _joined_along(run, eqn, index)
    if len(ins) == 1:
        return ins[0], index
    # Of `and`, whatever is False decided that it is; of `or`, whatever is True.
    for atom in ins:
        of_operand = _in_operand(index, np.shape(run.read(atom)))
        if bool(nonfinite.host(run.read(atom))[of_operand]) is record.joins:
            return atom, of_operand
    return None


def _in_operand(index: Index, shape: tuple[int, ...]) -> Index:
    """The element of an operand that an element of an elementwise result is made of: a side of length 1 is stretched."""
    return tuple(0 if side == 1 else position for position, side in zip(index, shape, strict=True)) if shape else ()


def _joined_along(run: Run, eqn: JaxprEqn, index: Index) -> tuple[Atom, Index] | None:
    """The first element along the axes of a reduction that is what the result is; of "all are True" one of them all."""
    axes = primitives.of(eqn).axes
    value, whole = nonfinite.host(run.read(eqn.outvars[0]))[index], nonfinite.host(run.read(eqn.invars[0]))
    assert axes is not None
    joined, rest = axes(eqn.params, whole.ndim), iter(index)
    place = tuple(slice(None) if axis in joined else next(rest) for axis in range(whole.ndim))
    same = np.zeros(whole.shape, bool)
    same[place] = whole[place] == value
    return (eqn.invars[0], nonfinite.first(same)) if same.any() else None


def _compared(run: Run, eqn: JaxprEqn, index: Index) -> str:
    """A comparison written out over its operands' values at an element: `0 > 0`, `is_finite(inf)`."""
    if not run.knows_ins(eqn) or len(eqn.outvars) != 1:
        return ""
    shape = tuple(compat.aval(eqn.outvars[0]).shape)
    ins = [run.read(atom) for atom in eqn.invars]
    if any((np.ndim(x) and np.broadcast_shapes(np.shape(x), shape) != shape) or np.ndim(x) not in (0, len(shape)) for x in ins):
        return ""
    values = [wording.number(nonfinite.scalar(nonfinite.host(x)[_in_operand(index, np.shape(x))]), str(x.dtype)) for x in ins]
    infix = primitives.of(eqn).infix
    return f" {infix} ".join(values) if infix and len(values) == 2 else f"{eqn.primitive.name}({', '.join(values)})"
