"""The report of a program whose check failed: what the check saw, followed back from the choice that it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nandetect import compat, nonfinite
from nandetect.compat import Var
from nandetect.interpret import callbacks, walk
from nandetect.interpret.walk import Run
from nandetect.locating import reporting, steering
from nandetect.locating.comparisons import Sought
from nandetect.locating.steering import Sweep
from nandetect.locating.tracked import Wanted
from nandetect.locating.trail import Birth, Node, Trail
from nandetect.primitives import Use
from nandetect.program.trace import Program
from nandetect.records import Report

# How often the way back is gone, each time without what was found before.
_ROUNDS = 4


def seen_by_a_check(program: Program) -> Report | None:
    """Where the value was born that a check of the program refused; None where none of what it saw was non-finite.

    A check sees it itself (`isfinite`), or sees what came of it: a solver that rejects every step for its NaN, or one now and then, until
    there were too many. What a library both makes and compares in one call is told where nothing else is.
    """
    top, trail = walk.begin(program), Trail()
    walk.run(top, program.args)
    others: list[Birth] = []
    for node in _checks(top):
        if isinstance(node.eqn.invars[0], compat.Literal):
            continue
        sought = None
        for _ in range(_ROUNDS):
            sweep = Sweep(asked_for=True, sought=sought)
            sweep.back(node.run, {node.eqn.invars[0]: np.ones(np.shape(node.run.read(node.eqn.invars[0])), bool)}, "branch", node)
            for decision in sorted(sweep.decisions, key=lambda decision: not decision.is_nan):
                # What made NaN of finite numbers needed nothing before it.
                born = sorted(steering.births(trail, decision), key=lambda birth: not (_is_nan(birth) and _was_given_finite(birth.node)))
                own = [birth for birth in born if not steering.is_of_one_call(birth, decision)]
                if own and (decision.is_nan or _is_nan(own[0])):
                    return reporting.of_birth(program, trail, own[0])
                others += [birth for birth in born if decision.is_nan or _is_nan(birth)]
            # Of loops the last iteration was looked into: then the first that tells of a NaN, by what was not looked at yet.
            sought = (sought or Sought(tests=True)).without(decision.node.order for decision in sweep.decisions)
    return reporting.of_birth(program, trail, others[0]) if others else None


def _is_nan(birth: Birth) -> bool:
    made = birth.node.run.read(birth.node.eqn.outvars[birth.output])
    return bool((nonfinite.nans(made) & birth.mask).any())


def _was_given_finite(node: Node) -> bool:
    return all(nonfinite.is_clean(x) for x in node.run.ins(node.eqn) if nonfinite.is_inexact(x))


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
