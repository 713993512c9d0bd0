"""The pass in which a birth is told: that of its equation, or the backward pass where only gradients took the value up."""

from __future__ import annotations

from collections.abc import Iterator

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Atom, JaxprEqn, Var
from nandetect.interpret.walk import Run, variables
from nandetect.locating.trail import Birth, Trail
from nandetect.program.phase import Phases
from nandetect.records import Phase


def phase_of(trail: Trail, birth: Birth, phases: Phases) -> Phase:
    """The phase of a birth's equation; backward for a forward one whose bad value only gradients took up."""
    own = phases.of(birth.node.path)
    if own != "forward" or any(_dropped_loss_is_bad(run, phases) for run in _around(birth.node.run)):
        return own
    on_the_way = [phases.of(node.path) for node in trail.chain(birth.node)]
    return "backward" if "backward" in on_the_way else "forward"


def _around(run: Run) -> Iterator[Run]:
    """A run and those that it stands in."""
    inner: Run | None = run
    while inner is not None:
        yield inner
        inner = inner.parent


def _dropped_loss_is_bad(run: Run, phases: Phases) -> bool:
    """Whether a plain `grad`, which drops the loss, drops a non-finite one: then the forward pass failed, though nobody saw it."""
    used = _used(run)
    return any(
        var not in used and var in run.values and nonfinite.is_inexact(var.aval) and not nonfinite.is_clean(run.values[var])
        for number, eqn in enumerate(run.jaxpr.eqns)
        if phases.of((*run.path, number)) == "forward"
        for var in eqn.outvars
    )


def _used(run: Run) -> set[Var]:
    """The variables of a run that some equation reads, or that leave it for somebody who reads them."""
    read: list[Atom] = [atom for eqn in run.jaxpr.eqns for atom in eqn.invars]
    return set(variables([*read, *_leaving(run)]))


def _leaving(run: Run) -> Iterator[Atom]:
    """The results of a run but those that the program around it drops: a loop may stack losses that nobody returns."""
    if run.parent is None:
        yield from run.jaxpr.outvars
        return
    eqn, used = run.eqns[-1], _used(run.parent)
    carried = _carried(eqn)
    for result, (inner, outer) in enumerate(zip(run.jaxpr.outvars, eqn.outvars, strict=False)):
        # Carried results are read by the loop's next iteration.
        if result < carried or outer in used:
            yield inner


def _carried(eqn: JaxprEqn) -> int:
    """How many of an equation's results are carried from iteration to iteration."""
    if not primitives.of(eqn).loops:
        return 0
    return compat.scan_parts(eqn)[1] if eqn.primitive.name == "scan" else len(eqn.outvars)
