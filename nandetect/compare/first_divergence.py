"""The first equation at which a function parts from the truth, at one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from flint import ctx

from nandetect import nonfinite
from nandetect.annotations import Array
from nandetect.compare.oracle import eps
from nandetect.compare.pair import Loss
from nandetect.compare.results import Parting, What
from nandetect.compat import Atom, Literal, Var
from nandetect.fixing import locate
from nandetect.interpret import walk
from nandetect.interpret.walk import Run
from nandetect.locating import events, reporting
from nandetect.locating.trail import Node
from nandetect.program import trace
from nandetect.program.phase import Phases
from nandetect.records import Report
from nandetect.truth import Values, evaluate
from nandetect.truth.balls import LADDER, Unclear
from nandetect.truth.elementwise import decided
from nandetect.truth.table import each, lifted


def origin(name: str, function: Loss, args: Sequence[jax.Array], what: What) -> Report | None:
    """The report of where a non-finite value comes from, by `nd.locate`; None where the function is finite when it is run again."""
    step = function if what == "value" else jax.grad(function)
    report = locate.locate(jax.jit(step), *args)
    return None if report is None or report.origin.value == "finite" else replace(report, label=name, called_at=None)


@dataclass(frozen=True, slots=True)
class _Error:
    """The error of an equation's result, in ulps of its largest element, and the largest error of its operands (`before`)."""

    node: Node
    ulps: float
    before: float


def inaccurate(function: Loss, args: Sequence[jax.Array], dtype: np.dtype, what: What) -> Parting | None:
    """The equation that loses the most: the error of its result is the largest compared with that of its operands.

    A rounding costs about one ulp; a subtraction of nearly equal numbers, or an `exp` of a large one, costs many.
    """
    step = function if what == "value" else jax.grad(function)
    program = trace.trace(step, args, {})
    run = Run(program.jaxpr, program.consts)
    walk.run(run, program.args)
    errors = _errors(run, program.args, eps(dtype))
    if not errors:
        return None
    worst = max(errors, key=lambda error: error.ulps / max(error.before, 1.0))
    event = events.make(worst.node, 0, None, reporting.lens(program, Phases(program.jaxpr, program.retrace)))
    return Parting(event=event, ulps=worst.ulps, ulps_before=worst.before)


def _errors(run: Run, args: Sequence[Array], unit: float) -> list[_Error]:
    """The errors of the equations that lose something, computed with the first precision that decides everything."""
    for precision in LADDER[1:]:
        with ctx.workprec(precision):
            try:
                exact_run = _ExactRun(unit)
                exact_run.run(run, list(args), {})
                return exact_run.errors
            except Unclear:
                continue
    return []


class _ExactRun:
    """Computes the exact values of a recorded run; `errors` are those of the equations that lost something, inner ones too.

    `unit` is the ulp of 1.
    """

    def __init__(self, unit: float):
        self.unit = unit
        self.errors: list[_Error] = []

    def run(self, run: Run, args: Sequence[Array], errors_of: dict[Var, float]) -> list[Array]:
        """The exact results of a run. `errors_of` holds the errors of its arguments, in ulps, and is given those of its other variables."""
        exact = dict(zip([*run.jaxpr.constvars, *run.jaxpr.invars], map(evaluate.exact_or_plain, [*run.consts, *args]), strict=True))

        def read(atom: Atom) -> Array:
            return evaluate.exact_or_plain(walk.literal(atom)) if isinstance(atom, Literal) else exact[atom]

        for number, eqn in enumerate(run.jaxpr.eqns):
            ins = [read(atom) for atom in eqn.invars]
            before = max((errors_of.get(atom, 0.0) for atom in eqn.invars if not isinstance(atom, Literal)), default=0.0)
            child = run.inner.get(number)
            if child is None:
                outs = evaluate.apply(eqn, ins)
            else:
                operands = zip(child.jaxpr.invars, (eqn.invars[position] for position in child.operands), strict=True)
                inner_errors = {var: errors_of.get(atom, 0.0) for var, atom in operands if not isinstance(atom, Literal)}
                outs = self.run(child, [ins[position] for position in child.operands], inner_errors)
            exact.update(zip(eqn.outvars, outs, strict=True))
            for var, out in zip(eqn.outvars, outs, strict=True):
                if not nonfinite.is_inexact(var.aval) or var not in run.values:
                    continue
                errors_of[var] = _relative(out, run.values[var], self.unit)
                if child is None and errors_of[var] > before:
                    self.errors.append(_Error(Node(run, number), errors_of[var], before))
        return [read(atom) for atom in run.jaxpr.outvars]


def _relative(exact: Array, got: Array, unit: float) -> float:
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
