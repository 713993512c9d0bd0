"""A run whose results are all finite, and that a NaN steered: it was compared, and what came of that decided when a loop ended, which
branch ran or what was selected."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import Atom, Jaxpr
from nandetect.interpret import walk
from nandetect.interpret.walk import Run
from nandetect.locating import comparisons, decisive, reporting, steering
from nandetect.locating.comparisons import Sought
from nandetect.locating.otherwise import changing
from nandetect.locating.steering import Sweep
from nandetect.locating.trail import Node, Trail
from nandetect.program.trace import Program
from nandetect.records import Report

# How often it is looked for once more, without the comparisons that were found to be meant.
_ROUNDS = 4
# A program in which a NaN is compared is worth more time than others.
_LONGER = 2


def may_be_steered(jaxpr: Jaxpr) -> bool:
    """Whether numbers that are compared may decide when a loop of a program ends, or which branch of it runs."""
    return _compares(jaxpr) and _decides(jaxpr, True)


def steered(program: Program, beside: Collection[int] = (), most: float = math.inf) -> Report | None:
    """Where the NaN was born that steered a run, with what it decided; None where none did. The program has no callbacks.

    Of a loop, some iterations that compare a NaN are looked into. A NaN that arrived or was written is state. What it steers is seen by
    deciding otherwise: the results differ then, those `beside` left out. Nothing new is begun after so many times the `most` seconds as
    `_LONGER` says.
    """
    sought, top = Sought(until=time.perf_counter() + most * _LONGER), walk.begin(program)
    if not sought.are_in(program):
        return None
    for _ in range(_ROUNDS):
        if sought.is_late:
            return None
        if not top.done:
            walk.run(top, program.args)
        sweep, trail = Sweep(sought=sought), Trail()
        sweep.back(top, _finite(top, beside), "selection", Node(top, top.done - 1))
        if not sweep.decisions:
            return None
        made = {}
        for decision in sorted(sweep.decisions, key=lambda decision: decision.kind):
            births = [birth for birth in steering.births(trail, decision) if not steering.is_of_one_call(birth, decision)]
            if births:
                made.setdefault(decision.node, (decision, births[0]))
        results = [number for number in range(len(program.results)) if number not in beside]
        for node in changing(program, list(made), results):
            decision, birth = made[node]
            report = reporting.of_birth(program, trail, birth)
            return replace(report, notes=(*report.notes, decisive.said(decision)))
        sought = sought.without(decision.node.order for decision in sweep.decisions)
    return None


def _finite(top: Run, beside: Collection[int]) -> dict[compat.Var, np.ndarray]:
    """The elements of a run's results that are not NaN."""
    results = walk.variables([atom for number, atom in enumerate(top.jaxpr.outvars) if number not in beside])
    return {var: ~nonfinite.nans(value) if nonfinite.is_inexact(value := top.read(var)) else _every(value) for var in results}


def _every(value: Array) -> np.ndarray:
    return np.ones(np.shape(value), bool)


def _compares(jaxpr: Jaxpr) -> bool:
    inner = (compat.open_jaxpr(sub)[0] for eqn in jaxpr.eqns for _, sub in compat.sub_jaxprs(eqn))
    return any(map(comparisons.compares, jaxpr.eqns)) or any(map(_compares, inner))


def _decides(jaxpr: Jaxpr, is_top: bool) -> bool:
    for eqn in jaxpr.eqns:
        subs = [compat.open_jaxpr(sub)[0] for _, sub in compat.sub_jaxprs(eqn)]
        if primitives.of(eqn).branches and _comes_of_numbers(jaxpr, eqn.invars[0], is_top):
            return True
        if primitives.of(eqn).loops and "cond_jaxpr" in eqn.params and any(map(_compares, subs)):
            return True
        if any(_decides(sub, False) for sub in subs):
            return True
    return False


def _comes_of_numbers(jaxpr: Jaxpr, atom: Atom, is_top: bool) -> bool:
    """Whether an index comes of numbers that were compared; of what a jaxpr within another is given, nobody knows."""
    wanted = {atom}
    for eqn in reversed(jaxpr.eqns):
        if wanted.isdisjoint(eqn.outvars):
            continue
        if comparisons.compares(eqn) or any(_compares(compat.open_jaxpr(sub)[0]) for _, sub in compat.sub_jaxprs(eqn)):
            return True
        wanted.update(walk.variables(eqn.invars))
    return not is_top and not wanted.isdisjoint(jaxpr.invars)
