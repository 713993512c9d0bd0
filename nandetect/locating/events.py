"""From an equation as it ran to the `Event` that a report shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import jax
import numpy as np

from nandetect import nonfinite, primitives
from nandetect.annotations import Array
from nandetect.interpret.shards import flows_of, of_one
from nandetect.interpret.walk import Run
from nandetect.locating import integers, reasons
from nandetect.locating.operand_names import Names, made_by
from nandetect.locating.trail import Node
from nandetect.nonfinite import Mask
from nandetect.program import foreign, sources
from nandetect.program.derivative import Derivatives
from nandetect.program.phase import Phases
from nandetect.records import Event, Frame, Operand, Source


@dataclass(frozen=True)
class Lens:
    """What the events of one program are made with: its phases, its variables' names, its derivatives."""

    phases: Phases
    names: Names
    derivatives: Derivatives


def make(node: Node, output: int, mask: Mask | None, lens: Lens, brief: bool = False) -> Event:
    """The event at one output of an equation; `mask` marks its bad elements, the first of which is shown. `brief` leaves operands out."""
    run, eqn = node.run, node.eqn
    path = [*run.eqns, eqn]
    value = run.read(eqn.outvars[output])
    marked = mask if mask is not None and mask.any() else nonfinite.bad(value)
    index = nonfinite.first(marked) if marked.any() else None
    where = {} if brief else _elements(node, output, index)
    shard = None
    if run.shards:
        # Values are stacked over the shards: the event is of the shard that holds the element.
        shard, index = (index[0], index[1:]) if index else (0, None)
        value = nonfinite.host(value)[shard]
        where = {slot: element[1:] for slot, element in where.items()}
    context = _context(node, value, index, shard)
    kind = nonfinite.kind_of(nonfinite.host(value)[index]) if index is not None else "finite"
    made_in = lens.phases.of(node.path)
    source = sources.source(eqn, run.eqns)
    derivative = None
    if not brief:
        source, derivative = lens.derivatives.explain(node.path, source)
    operands = () if brief else _operands(node, where, shard, lens.names, source, made_in == "backward")
    known = [operand.value for operand in operands]
    given_inf = any(operand.inf for operand in operands) and not any(operand.nan for operand in operands)
    return Event(
        primitive=eqn.primitive.name,
        value=kind,
        reason="" if brief or kind == "finite" else _reason(node, shard, index, known, kind, given_inf),
        phase=made_in,
        source=source,
        scope=sources.scope(path),
        context=context,
        index=index or (),
        **_measured(value),
        operands=operands,
        derivative_of=derivative,
        loops=_loops(node),
    )


def _reason(node: Node, shard: int | None, index: tuple[int, ...] | None, values: Sequence[object], kind: str, given_inf: bool) -> str:
    called = foreign.named(node.eqn)
    if called:
        return f"{called} returned {kind}"
    own = node if shard is None or not primitives.of(node.eqn).chooses else Node(of_one(node.run, shard), node.number)
    outside = integers.out_of_bounds(own, index) if index is not None else None
    if outside is not None:
        return f"{outside.reason}, filled with {kind}"
    return reasons.reason(primitives.of(node.eqn), values, kind, given_inf)


def arrival(name: str, value: Array, mask: Mask) -> Event:
    """The event of a value that was non-finite before the step began."""
    index = nonfinite.first(mask)
    kind = nonfinite.kind_of(nonfinite.host(value)[index])
    return Event(
        primitive="<input>",
        value=kind,
        reason=f"{kind} in the input",
        phase="forward",
        index=index,
        **_measured(value),
        operands=(nonfinite.describe(value, index, name),),
        argument=name,
    )


class Measured(TypedDict):
    """What an event says of a whole value."""

    count: int
    size: int
    shape: tuple[int, ...]
    dtype: str


def _measured(value: Array) -> Measured:
    shape = tuple(np.shape(value))
    return Measured(count=int(nonfinite.bad(value).sum()), size=math.prod(shape), shape=shape, dtype=str(getattr(value, "dtype", "")))


def _elements(node: Node, output: int, index: tuple[int, ...] | None) -> dict[int, tuple[int, ...]]:
    """For each operand the one element that the output's element came from; of several, the first that is bad."""
    run, eqn = node.run, node.eqn
    if index is None or not run.knows_ins(eqn):
        return {}
    ins = run.ins(eqn)
    mark = nonfinite.mask_of(np.shape(run.read(eqn.outvars[output])), index)
    where = {}
    for flow in flows_of(run, eqn, ins, output):
        origin = flow.pull(mark)
        if origin.sum() != 1:
            origin = origin & nonfinite.bad(ins[flow.slot])
        if origin.any():
            where[flow.slot] = nonfinite.first(origin)
    return where


def _operands(
    node: Node, where: dict[int, tuple[int, ...]], shard: int | None, names: Names, own: Source | None, in_derivative: bool
) -> tuple[Operand, ...]:
    run, eqn = node.run, node.eqn
    if not run.knows_ins(eqn):
        return ()
    expression = sources.excerpt(own) if own else ""
    called = [names.of(run, atom) for atom in eqn.invars]
    # A name that is the equation's own expression is dropped: inside a library's function every value would have it.
    called = ["" if name == expression else name for name in called]
    ins = [value if shard is None else nonfinite.host(value)[shard] for value in run.ins(eqn)]
    told = [nonfinite.describe(value, where.get(slot), called[slot]) for slot, value in enumerate(ins)]
    if not in_derivative:
        return tuple(told)
    # What a derivative rule takes the user has mostly no name for.
    made = [made_by(run, atom, own) if not name else "" for name, atom in zip(called, eqn.invars, strict=True)]
    return tuple(replace(operand, made_by=of) for operand, of in zip(told, made, strict=True))


def _context(node: Node, value: Array, index: tuple[int, ...] | None, shard: int | None) -> tuple[tuple[str, int], ...]:
    """The `vmap`s, loops, branches and shards that the equation stands in, outermost first."""
    entries: list[tuple[str, int] | None] = []
    run: Run | None = node.run
    while run is not None and run.parent is not None:
        entries.append(("shard", shard) if shard is not None and not run.parent.shards and run.shards else run.entry)
        run = run.parent
    # The sizes of vmapped axes, which stand first in a value: JAX's name stack has the vmaps, not their sizes.
    sizes = iter(np.shape(value))
    context: list[tuple[str, int]] = []
    for eqn, entry in zip([*node.run.eqns, node.eqn], [*reversed(entries), None], strict=True):
        context += [("vmap", int(size)) for size in itertools.islice(sizes, sources.vmaps(eqn))]
        context += [entry] if entry else []
    return (*context, *(() if shard is not None else _shard(value, index)))


def _loops(node: Node) -> tuple[Frame | None, ...]:
    """Where the loops stand that an equation runs in, outermost first."""
    loops: list[Frame | None] = []
    run: Run | None = node.run
    while run is not None and run.parent is not None:
        if run.entry is not None and primitives.named(run.entry[0]).loops:
            source = sources.source(run.eqns[-1], run.eqns[:-1])
            loops.append(source and source.frame)
        run = run.parent
    return tuple(reversed(loops))


def _shard(value: Array, index: tuple[int, ...] | None) -> tuple[tuple[str, int], ...]:
    """Which device of a sharded value holds the element."""
    if not isinstance(value, jax.Array) or index is None or len(value.devices()) < 2 or value.is_fully_replicated:
        return ()
    for number, (_, box) in enumerate(value.sharding.devices_indices_map(value.shape).items()):
        sides = zip(box, index, value.shape, strict=True)
        if all((side.start or 0) <= position < (size if side.stop is None else side.stop) for side, position, size in sides):
            return (("shard", number),)
    return ()
