"""From an equation as it ran to the `Event` that a report shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from nandetect import probe, provenance, reasons
from nandetect.flow import flows
from nandetect.names import Names
from nandetect.phase import Phases
from nandetect.probe import Mask
from nandetect.records import Event, Operand, Phase
from nandetect.trail import Node

SIMPLE = frozenset({"reduce_sum", "dot_general", "conv_general_dilated", "cumsum"})


def make(node: Node, output: int, mask: Mask | None, phases: Phases, names: Names, phase: Phase | None = None, brief: bool = False) -> Event:
    """The event at one output of an equation; `mask` marks its bad elements, the first of which is shown. `brief` leaves operands out."""
    run, eqn = node.run, node.eqn
    path = [*run.eqns, eqn]
    value = run.read(eqn.outvars[output])
    marked = mask if mask is not None and mask.any() else probe.bad(value)
    index = probe.first(marked) if marked.any() else None
    kind = probe.kind_of(probe.host(value)[index]) if index is not None else "finite"
    operands = () if brief else _operands(node, output, index, names)
    known = [operand.value for operand in operands]
    given_inf = any(operand.inf for operand in operands) and not any(operand.nan for operand in operands)
    return Event(
        primitive=eqn.primitive.name,
        value=kind,
        reason="" if brief or kind == "finite" else reasons.reason(eqn.primitive.name, known, kind, given_inf),
        phase=phase or phases.of(node.path),
        source=provenance.source(eqn, run.eqns),
        scope=provenance.scope(path),
        context=_context(node, value, index),
        index=index or (),
        count=int(probe.bad(value).sum()),
        size=int(np.prod(np.shape(value), dtype=np.int64)),
        shape=tuple(np.shape(value)),
        dtype=str(getattr(value, "dtype", "")),
        operands=operands,
    )


def arrival(name: str, value: Any, mask: Mask, context: tuple[tuple[str, int], ...] = ()) -> Event:
    """The event of a value that was non-finite before the step began."""
    index = probe.first(mask)
    kind = probe.kind_of(probe.host(value)[index])
    return Event(
        primitive="<input>",
        value=kind,
        reason=f"{kind} in the input",
        phase="forward",
        context=context,
        index=index,
        count=int(probe.bad(value).sum()),
        size=int(np.prod(np.shape(value), dtype=np.int64)),
        shape=tuple(np.shape(value)),
        dtype=str(getattr(value, "dtype", "")),
        operands=(probe.describe(value, index, name),),
        argument=name,
    )


def _operands(node: Node, output: int, index: tuple[int, ...] | None, names: Names) -> tuple[Operand, ...]:
    run, eqn = node.run, node.eqn
    if not all(run.knows(atom) for atom in eqn.invars):
        return ()
    ins = run.ins(eqn)
    where: dict[int, tuple[int, ...]] = {}
    if index is not None:
        at = np.zeros(tuple(eqn.outvars[output].aval.shape), bool)
        at[index] = True
        for flow in flows(eqn, ins, output):
            found = flow.pull(at)
            if found.sum() == 1:
                where[flow.slot] = probe.first(found)
            elif found.any() and (found & probe.bad(ins[flow.slot])).any():
                where[flow.slot] = probe.first(found & probe.bad(ins[flow.slot]))
    own = provenance.source(eqn, run.eqns)
    expression = provenance.excerpt(own) if own else ""
    called = [names.of(run, atom) for atom in eqn.invars]
    # Inside a library's expression every value would be called by that same expression.
    called = ["" if name == expression else name for name in called]
    return tuple(probe.describe(value, where.get(slot), called[slot]) for slot, value in enumerate(ins))


def _context(node: Node, value: Any, index: tuple[int, ...] | None) -> tuple[tuple[str, int], ...]:
    """Loops, branches and shards that the equation stands in, then the `vmap`s, outermost first."""
    path = [*node.run.eqns, node.eqn]
    shape = np.shape(value)
    # A batching trace puts its axis first; JAX records that there was one, not its size.
    mapped = tuple(("vmap", int(size)) for size in shape[: provenance.vmaps(path)])
    return (*node.run.context, *mapped, *_shard(value, index))


def _shard(value: Any, index: tuple[int, ...] | None) -> tuple[tuple[str, int], ...]:
    """Which device of a sharded value holds the element."""
    sharding = getattr(value, "sharding", None)
    if sharding is None or index is None or len(getattr(value, "devices", set)()) < 2 or value.is_fully_replicated:
        return ()
    for number, (_, box) in enumerate(sharding.devices_indices_map(value.shape).items()):
        inside = [(s.start or 0) <= at < (size if s.stop is None else s.stop) for s, at, size in zip(box, index, value.shape, strict=True)]
        if all(inside):
            return (("shard", number),)
    return ()
