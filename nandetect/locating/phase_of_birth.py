"""The pass in which a birth is told: that of its equation, or the backward pass where only the gradient depends on the value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nandetect import compat, nonfinite
from nandetect.annotations import Array
from nandetect.compat import Jaxpr, JaxprEqn, Var
from nandetect.interpret.walk import Run
from nandetect.locating import decides, events
from nandetect.locating.events import Lens
from nandetect.locating.trail import Birth, Node, Trail
from nandetect.program import sources
from nandetect.program.phase import Phases
from nandetect.records import Event


def birth_event(trail: Trail, birth: Birth, lens: Lens) -> Event:
    """The event of a birth, in the phase that its value has."""
    return in_its_phase(events.make(birth.node, birth.output, birth.mask, lens), trail, birth, lens)


def in_its_phase(event: Event, trail: Trail, birth: Birth, lens: Lens) -> Event:
    """An event in the phase that its value has: `backward` for one of the forward pass that only the gradient suffers from."""
    phases = lens.phases
    if event.phase == "forward" and _is_for_gradients(trail, birth, phases):
        how = _how(birth, phases)
        return event if how in ("broken", "chosen") else replace(event, phase="backward", role="absorbed" if how else "computed")
    if event.phase != "backward":
        return event
    if phases.is_forward_mode(birth.node.path):
        return replace(event, role="forward mode")
    stack = sources.full_stack([*birth.node.run.eqns, birth.node.eqn])
    if "transpose(" not in stack and event.derivative_of is None and not phases.is_derivative(birth.node.path):
        # The loss itself, which a plain `grad` drops and which is its own derivative (`exp`): nobody else reads it.
        return replace(event, phase="forward")
    first = _computed_first(birth, phases) if "rematted_computation" in stack else None
    if first is None:
        return event
    if isinstance(first, Birth) and _how(first, phases) in ("broken", "chosen"):
        return replace(event, phase="forward", derivative_of=None)
    return replace(event, role="recomputed", derivative_of=None)


def _is_for_gradients(trail: Trail, birth: Birth, phases: Phases) -> bool:
    """Whether nothing but gradients is bad for a birth's sake."""
    if any(drops_a_bad_loss(run, phases) for run in _around(birth.node.run)):
        return False
    return "backward" in [phases.of(node.path) for node in trail.chain(birth.node)]


def _how(birth: Birth, phases: Phases) -> decides.How | None:
    """How a result of the step depends on a birth; None too where that cannot be measured, as values were let go of."""
    try:
        return decides.how(birth, phases)
    except Exception:
        return None


def _around(run: Run) -> Iterator[Run]:
    """A run and those that it stands in."""
    inner: Run | None = run
    while inner is not None:
        yield inner
        inner = inner.parent


def drops_a_bad_loss(run: Run, phases: Phases) -> bool:
    """Whether a plain `grad`, which drops the loss, drops a non-finite one: then the forward pass failed, though nobody saw it."""
    if run.parent is None and not phases.is_whole:
        # Of what ran one by one, the operations that nobody needs are left out: a loss, but not what was computed beside it.
        return False
    read = decides.used(run)
    dropping = (
        (*run.path, number)
        for number, eqn in enumerate(run.jaxpr.eqns)
        if phases.of((*run.path, number)) == "forward" and decides.drops(eqn, read, _made_bad(run, number, eqn))
    )
    # The coefficient of a derivative that `stop_gradient` ends is dropped too, and is nobody's loss.
    return any(not phases.is_surely_derivative(path) for path in dropping)


def _made_bad(run: Run, number: int, eqn: JaxprEqn) -> list[Var]:
    """The bad results of an equation; not those that a call returns as they are written in it, which are nobody's loss."""
    child = run.inner.get(number)
    inside = child.jaxpr.outvars if child else eqn.outvars
    pairs = zip(inside, eqn.outvars, strict=False)
    return [var for atom, var in pairs if not isinstance(atom, compat.Literal) and _is_bad(run, var)]


def _is_bad(run: Run, var: Var) -> bool:
    return var in run.values and nonfinite.is_inexact(var.aval) and not nonfinite.is_clean(run.values[var])


def _computed_first(birth: Birth, phases: Phases) -> Birth | bool | None:
    """What a rematerialised equation computes again: the birth in the forward pass, True where that ran inside a loop, None for nothing."""
    node = birth.node
    top = list(_around(node.run))[-1]
    wanted, value = _written(node.eqn, node.run.eqns), node.run.read(node.eqn.outvars[birth.output])
    found: bool | None = None
    for run, path, eqn, eqns in _forward(top, top.jaxpr, (), (), phases):
        if eqn.primitive is not node.eqn.primitive or _written(eqn, eqns) != wanted:
            continue
        if run is None:
            found = True
        elif eqn.outvars[birth.output] in run.values and _same(run.values[eqn.outvars[birth.output]], value):
            return Birth(Node(run, path[-1]), birth.output, birth.mask)
    return found


def _same(one: Array, other: Array) -> bool:
    return bool(np.array_equal(nonfinite.bad(one), nonfinite.bad(other)))


def _written(eqn: JaxprEqn, eqns: Sequence[JaxprEqn]) -> tuple[object, ...]:
    """What an equation computes, and where it was written."""
    source = sources.source(eqn, eqns)
    operands = [(str(compat.aval(atom)), str(getattr(atom, "val", ""))) for atom in eqn.invars]
    return source and sources.place(source), tuple(operands)


def _forward(
    run: Run | None, jaxpr: Jaxpr, path: tuple[int, ...], eqns: tuple[JaxprEqn, ...], phases: Phases
) -> Iterator[tuple[Run | None, tuple[int, ...], JaxprEqn, tuple[JaxprEqn, ...]]]:
    """The equations of the forward pass, each with the run that it ran in where the walk entered it."""
    for number, eqn in enumerate(jaxpr.eqns):
        own = (*path, number)
        if phases.of(own) == "forward":
            yield run, own, eqn, eqns
        entered = run.inner.get(number) if run is not None else None
        for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
            inside = entered if entered is not None and entered.path[-1] == slot else None
            yield from _forward(inside, compat.open_jaxpr(sub)[0], (*own, slot), (*eqns, eqn), phases)
