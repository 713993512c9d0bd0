"""A value that arrived broken, that the forward pass masks and the backward pass brings back: 0 times NaN is NaN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Var
from nandetect.interpret import loops
from nandetect.interpret.shards import flows_of
from nandetect.interpret.walk import Run
from nandetect.locating import events
from nandetect.locating.events import Lens
from nandetect.locating.origin import Origin, Verdict
from nandetect.locating.phase_of_birth import drops_a_bad_loss
from nandetect.locating.trail import Node
from nandetect.nonfinite import Mask
from nandetect.program import sources
from nandetect.program.phase import Phases


def notes(verdict: Verdict, first: Origin, lens: Lens) -> tuple[str, ...]:
    """Where what arrived was masked, and where the backward pass brought it back; empty for what was not masked."""
    if not first.arrived or first.node is None or drops_a_bad_loss(verdict.run, lens.phases):
        return ()
    # The way back is a help beside the report, which must not be lost for it.
    try:
        return _notes(verdict, first.node, first.event.value, lens)
    except Exception:
        return ()


def _notes(verdict: Verdict, start: Node, value: str, lens: Lens) -> tuple[str, ...]:
    trail, phases = verdict.trail, lens.phases
    back = [node for node in trail.chain(start) if phases.of(node.path) == "backward"]
    if not back:
        return ()
    products = {node: _product(verdict, node, lens) for node in trail.asked if phases.of(node.path) == "backward"}
    at = min((node for node, product in products.items() if product), key=lambda node: node.order, default=back[0])
    masks = (_masking(arrival.run, {arrival.atom: arrival.mask}, phases) for arrival in trail.arrivals if _is_var(arrival.atom))
    masked = next((node for node in masks if node is not None), None)
    if masked is not None and not (primitives.of(masked.eqn).chooses or primitives.of(masked.eqn).hands_on):
        # An inf that the forward pass computed with: 1 / inf is 0.
        return ()
    came_back = products.get(at) or f"`{at.eqn.primitive.name}` of {value}"
    return (f"masked in the forward pass{_at(masked)}; {came_back} in the backward pass{_at(at)}; mask before use",)


def _is_var(atom: compat.Atom) -> TypeGuard[Var]:
    return not isinstance(atom, compat.Literal)


def _at(node: Node | None) -> str:
    source = node and sources.source(node.eqn, node.run.eqns)
    return f" at line {source.line}" if source else ""


def _product(verdict: Verdict, back: Node, lens: Lens) -> str:
    """How an equation made a broken value of a zero and of another: `0 * nan`; empty where it did not."""
    if not primitives.of(back.eqn).multiplies:
        return ""
    output, mask = next(iter(verdict.trail.asked[back].items()))
    operands = events.make(back, output, mask, lens).operands
    # Of a matrix product the operands have many elements there, of which one is zero.
    zero = any(operand.zero if operand.value is None else operand.value == 0 for operand in operands)
    broken = next(("nan" if operand.nan else "inf" for operand in operands if operand.nan or operand.inf), "")
    return f"0 {'/' if back.eqn.primitive.name == 'div' else '*'} {broken}" if zero and broken else ""


def _masking(run: Run, broken: Mapping[Var, Mask], phases: Phases) -> Node | None:
    """The equation of the forward pass that lets none of these broken elements through; None where there is none such."""
    marked = dict(broken)
    for number in range(run.done):
        eqn = run.jaxpr.eqns[number]
        operands = {slot: marked[atom] for slot, atom in enumerate(eqn.invars) if _is_var(atom) and atom in marked}
        if not operands or phases.of((*run.path, number)) == "backward":
            continue
        child, inside = _inside(run, number, operands)
        found = _masking(child, inside, phases) if child is not None else None
        if found is not None:
            return found
        through = {var: _passed(run, number, output, operands) for output, var in enumerate(eqn.outvars) if nonfinite.is_inexact(var.aval)}
        if through and not any(mask.any() for mask in through.values()):
            return Node(run, number)
        marked |= {var: mask for var, mask in through.items() if mask.any()}
    return None


def _inside(run: Run, number: int, operands: Mapping[int, Mask]) -> tuple[Run | None, dict[Var, Mask]]:
    """A run within an equation, a loop's first iteration that reads a marked row, and what of its arguments is marked."""
    eqn = run.jaxpr.eqns[number]
    if number in run.inner:
        child = run.inner[number]
        return child, {var: operands[slot] for var, slot in zip(child.jaxpr.invars, child.operands, strict=True) if slot in operands}
    if not primitives.of(eqn).loops or run.shards:
        return None, {}
    loop = loops.opened(run, number)
    # A loop's operands stand as its body's arguments do, but that a while has those of its condition before them.
    arguments = {slot - loop.first_const: mask for slot, mask in operands.items() if slot >= loop.first_const}
    first_row = len(loop.consts) + loop.carry
    rows = [int(np.flatnonzero(mask.reshape(loop.length, -1).any(axis=1))[0]) for slot, mask in arguments.items() if slot >= first_row]
    row = min(rows, default=loop.row(0))
    child = loops.iteration(run, number, loop, loop.step(row)).run
    return child, {child.jaxpr.invars[slot]: mask[row] if slot >= first_row else mask for slot, mask in arguments.items()}


def _passed(run: Run, number: int, output: int, operands: Mapping[int, Mask]) -> Mask:
    """The broken elements of a result that come from marked ones."""
    eqn = run.jaxpr.eqns[number]
    bad = nonfinite.bad(run.read(eqn.outvars[output]))
    if number in run.inner or not bad.any():
        # What a call let through is known by its result.
        return bad
    flows = [flow for flow in flows_of(run, eqn, run.ins(eqn), output) if flow.slot in operands]
    return bad & np.logical_or.reduce([np.zeros(bad.shape, bool), *(flow.push(operands[flow.slot]) for flow in flows)])
