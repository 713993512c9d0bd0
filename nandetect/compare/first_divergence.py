"""The first equation at which a function parts from the truth, at one input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from flint import ctx

from nandetect import nonfinite
from nandetect.compare.oracle import eps
from nandetect.compare.results import Parting, What
from nandetect.interpret import walk
from nandetect.interpret.walk import Run
from nandetect.locating import events, locate, reporting
from nandetect.locating.trail import Node
from nandetect.program import trace
from nandetect.program.phase import Phases
from nandetect.records import Report
from nandetect.truth import Values, evaluate
from nandetect.truth.balls import LADDER, Unclear
from nandetect.truth.elementwise import decided
from nandetect.truth.table import each, lifted


def origin(name: str, function: Callable[..., Any], args: Sequence[Any], what: What) -> Report | None:
    """The origin of what is not finite, by `nd.locate`; None where it was not found, because run again it is finite."""
    step = function if what == "value" else jax.grad(function)
    report = locate.locate(jax.jit(step), *args)
    return None if report is None or report.origin.value == "finite" else replace(report, label=name, called_at=None)


@dataclass(frozen=True, slots=True)
class _Loss:
    """An equation's relative error in ulps of its own largest element, and the largest of those of what it was given."""

    node: Node
    ulps: float
    before: float


def inaccurate(function: Callable[..., Any], args: Sequence[Any], dtype: Any, what: What) -> Parting | None:
    """The equation that loses the most: its result is the furthest from the truth compared with what it was given.

    A rounding error costs about one ulp at a time; what costs many is a subtraction of nearly equal numbers, or an `exp` of a large one.
    """
    step = function if what == "value" else jax.grad(function)
    traced = trace.trace(step, args, {})
    run = Run(traced.jaxpr, traced.consts)
    walk.run(run, traced.args)
    losses = _losses(run, traced.args, eps(dtype))
    if not losses:
        return None
    most = max(losses, key=lambda loss: loss.ulps / max(loss.before, 1.0))
    lens = reporting.lens(traced, Phases(traced.jaxpr))
    told = events.make(most.node, 0, None, lens)
    return Parting(event=told, ulps=most.ulps, ulps_before=most.before)


def _losses(run: Run, args: Sequence[Any], unit: float) -> list[_Loss]:
    for precision in LADDER[1:]:
        with ctx.workprec(precision):
            try:
                return list(_beside(run, list(args), {}, unit)[0])
            except Unclear:
                continue
    return []


def _beside(run: Run, args: list[Any], errors: dict[Any, float], unit: float) -> tuple[list[_Loss], list[Any], dict[Any, float]]:
    """Run the exact values beside a run that has happened: what each equation lost, the exact results, and the errors of all variables."""
    exact = dict(zip([*run.jaxpr.constvars, *run.jaxpr.invars], map(evaluate.taken, [*run.consts, *args]), strict=True))
    found: list[_Loss] = []

    def read(atom: Any) -> Any:
        return evaluate.taken(walk.literal(atom)) if hasattr(atom, "val") else exact[atom]

    for number, eqn in enumerate(run.jaxpr.eqns):
        ins = [read(atom) for atom in eqn.invars]
        before = max((errors.get(atom, 0.0) for atom in eqn.invars if not hasattr(atom, "val")), default=0.0)
        child = run.inner.get(number)
        if child is None:
            outs = evaluate.apply(eqn, ins)
        else:
            handed = [atom for atom in (eqn.invars[at] for at in child.operands)]
            given = {var: errors.get(atom, 0.0) for var, atom in zip(child.jaxpr.invars, handed, strict=True) if not hasattr(atom, "val")}
            inner, outs, _ = _beside(child, [ins[at] for at in child.operands], given, unit)
            found += inner
        exact.update(zip(eqn.outvars, outs, strict=True))
        for var, out in zip(eqn.outvars, outs, strict=True):
            if not nonfinite.is_inexact(var.aval) or var not in run.values:
                continue
            errors[var] = _relative(out, run.values[var], unit)
            if child is None and errors[var] > before:
                found.append(_Loss(Node(run, number), errors[var], before))
    return found, [read(atom) for atom in run.jaxpr.outvars], errors


def _relative(exact: Any, got: Any, unit: float) -> float:
    """The largest error of an array in ulps of its largest element."""
    values = Values(each(decided, lifted(exact)))
    error = values.distance(nonfinite.host(got).astype(np.float64))
    magnitude = values.magnitude
    sound = np.isfinite(error) & np.isfinite(magnitude)
    if not sound.any():
        return 0.0
    largest = float(magnitude[sound].max())
    worst = float(error[sound].max())
    return 0.0 if worst == 0 else worst / (unit * largest) if largest > 0 else np.inf
