"""The limits behind a threshold: the sizes of a family from which equations inside the function make a non-finite value."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nandetect import nonfinite
from nandetect.compare.families import Family
from nandetect.compare.judged import Judged
from nandetect.compare.ordinary import Args
from nandetect.compare.results import Limit
from nandetect.compat import JaxprEqn
from nandetect.interpret import walk
from nandetect.interpret.walk import Run
from nandetect.program import sources, trace
from nandetect.program.trace import Program

# Sizes of a family at which onsets are looked for.
SIZES = np.geomspace(1.0, 1000.0, 19)
# Halvings of the interval between two of the sizes, which find a limit to a thousandth.
ROUNDS = 9


class Onset(NamedTuple):
    """An equation that made a non-finite result of finite operands, the equations that enclose it, and the kind of value that it made."""

    eqn: JaxprEqn
    enclosing: tuple[JaxprEqn, ...]
    made: str


# A function from a size to the first onset of every primitive.
Onsets = Callable[[float], dict[str, Onset]]


def limits(judged: Judged, families: Sequence[Family]) -> list[Limit]:
    """For each family and primitive, the smallest size at which an equation makes a non-finite result of finite operands."""
    if not families:
        return []
    runner = judged.runner
    program = trace.trace(runner.function, [jnp.asarray(arg) for arg in runner.cast(families[0].at(1.0))], {})
    return [limit for family in families for limit in _along(program, family, runner.cast)]


def _along(program: Program, family: Family, cast: Callable[[Args], list[np.ndarray]]) -> Iterator[Limit]:
    """The limits of one family, from small sizes to large ones."""

    def onsets(size: float) -> dict[str, Onset]:
        args = cast(family.at(size))
        if not all(np.isfinite(arg.astype(np.float64)).all() for arg in args):
            return {}
        run = Run(program.jaxpr, program.consts)
        walk.run(run, [jnp.asarray(arg) for arg in args])
        return {onset.eqn.primitive.name: onset for onset in reversed(list(_onsets(run)))}

    seen = set(onsets(float(SIZES[0])))
    for low, high in itertools.pairwise(map(float, SIZES)):
        onsets_at_high = onsets(high)
        for name in onsets_at_high.keys() - seen:
            size, onset = _first(onsets, name, low, high, onsets_at_high[name])
            yield Limit(family=family.name, primitive=name, made=onset.made, at=size, source=sources.source(onset.eqn, onset.enclosing))
        seen |= onsets_at_high.keys()


def _first(onsets: Onsets, name: str, low: float, high: float, onset_at_high: Onset) -> tuple[float, Onset]:
    """The smallest size between `low` and `high` at which an equation of that primitive is an onset, and that onset."""
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5
        onsets_at_middle = onsets(middle)
        low, high, onset_at_high = (low, middle, onsets_at_middle[name]) if name in onsets_at_middle else (middle, high, onset_at_high)
    return high, onset_at_high


def _onsets(run: Run) -> Iterator[Onset]:
    """The onsets of a run, in the order in which its equations ran."""
    for number, eqn in enumerate(run.jaxpr.eqns):
        child = run.inner.get(number)
        if child is not None:
            yield from _onsets(child)
            continue
        outs = [run.read(var) for var in eqn.outvars if nonfinite.is_inexact(var.aval)]
        bad = [out for out in outs if not nonfinite.is_clean(out)]
        if bad and all(nonfinite.is_clean(operand) for operand in run.ins(eqn) if nonfinite.is_inexact(operand)):
            element = nonfinite.host(bad[0])[nonfinite.first(nonfinite.bad(bad[0]))]
            yield Onset(eqn, run.eqns, nonfinite.kind_of(element))
