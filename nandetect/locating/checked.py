"""The report of a program whose check failed: what the check saw, followed back from the choice that it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nandetect import compat, nonfinite
from nandetect.compat import Var
from nandetect.interpret import callbacks, walk
from nandetect.interpret.walk import Run
from nandetect.locating import reporting, steering
from nandetect.locating.steering import Sweep
from nandetect.locating.tracked import Wanted
from nandetect.locating.trail import Node, Trail
from nandetect.primitives import Use
from nandetect.program.trace import Program
from nandetect.records import Report


def seen_by_a_check(program: Program) -> Report | None:
    """Where the value was born that a check of the program refused; None where none of what it saw was non-finite.

    A check sees it itself (`isfinite`), or sees what came of it: a solver that rejects every step for its NaN, until there were too many.
    """
    top, trail = walk.begin(program), Trail()
    walk.run(top, program.args)
    for node in _checks(top):
        sweep, index = Sweep(asked_for=True), node.eqn.invars[0]
        if not isinstance(index, compat.Literal):
            sweep.back(node.run, {index: np.ones(np.shape(node.run.read(index)), bool)}, "branch", node)
        for decision in sorted(sweep.decisions, key=lambda decision: not decision.is_nan):
            born = steering.births(trail, decision)
            if born:
                return reporting.of_birth(program, trail, born[0])
    return None


def given_to_what_raised(program: Program) -> Report | None:
    """Where the value was born that the first equation to raise was given; None where none raises, or all that it was given is finite."""
    top, trail = walk.begin(program), Trail()
    try:
        walk.run(top, program.args)
        return None
    # Whatever a check inside a primitive raises: it is asked what it was given, not what it said.
    except Exception:
        run = top
    while run.done in run.inner:
        run = run.inner[run.done]
    eqn = run.jaxpr.eqns[run.done]
    wanted: dict[Var, Wanted] = {}
    for atom in eqn.invars:
        if not isinstance(atom, compat.Literal) and nonfinite.is_inexact(atom.aval) and not nonfinite.is_clean(run.read(atom)):
            wanted[atom] = {Use.COMPUTED: nonfinite.bad(run.read(atom))}
    trail.upward(run, wanted, None)
    first = min(trail.births, key=lambda birth: birth.node.order, default=None)
    return reporting.of_birth(program, trail, first) if first is not None else None


def _checks(run: Run) -> Iterator[Node]:
    """The checks that failed, outside of loops."""
    for number, eqn in enumerate(run.jaxpr.eqns[: run.done]):
        if callbacks.is_spared(eqn):
            yield Node(run, number)
        if number in run.inner:
            yield from _checks(run.inner[number])
