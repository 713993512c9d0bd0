"""Which equations inside a function first turn non-finite along a family, and at which size: what a threshold comes from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from nandetect import nonfinite
from nandetect.compare.families import Family
from nandetect.compare.judged import Judge
from nandetect.compare.results import Limit
from nandetect.interpret import walk
from nandetect.interpret.walk import Run
from nandetect.program import sources, trace

# The sizes at which each is looked for; between two of them by halves, to a thousandth.
SIZES = np.geomspace(1.0, 1000.0, 19)
ROUNDS = 9

# An equation, those that enclose it, and what it made.
Birth = tuple[Any, tuple[Any, ...], str]


def limits(judge: Judge, families: Sequence[Family]) -> list[Limit]:
    """The smallest size at which an equation's result is not finite though what it was given is, for each family and primitive."""
    runner = judge.runner
    first = runner.cast(families[0].at(1.0)) if families else []
    traced = trace.trace(runner.function, [jnp.asarray(arg) for arg in first], {}) if families else None
    found: list[Limit] = []
    for family in families if traced else ():
        assert traced is not None
        found += _along(traced, family, runner.cast)
    return found


def _along(traced: trace.Program, family: Family, cast: Callable[[Any], list[np.ndarray]]) -> Iterator[Limit]:
    def births(size: float) -> dict[str, Birth]:
        args = cast(family.at(size))
        if not all(np.isfinite(arg.astype(np.float64)).all() for arg in args):
            return {}
        run = Run(traced.jaxpr, traced.consts)
        walk.run(run, [jnp.asarray(arg) for arg in args])
        return {name: (eqn, path, made) for name, eqn, path, made in reversed(list(_births(run)))}

    seen = set(births(float(SIZES[0])))
    for low, high in itertools.pairwise(SIZES):
        there = births(float(high))
        for name in there.keys() - seen:
            size, (eqn, path, made) = _first(births, name, float(low), float(high), there[name])
            yield Limit(family=family.name, primitive=name, made=made, at=size, source=sources.source(eqn, path))
        seen |= there.keys()


def _first(births: Callable[[float], dict[str, Birth]], name: str, low: float, high: float, found: Birth) -> tuple[float, Birth]:
    """The smallest size at which an equation of that primitive is one of the births."""
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5
        here = births(middle)
        low, high, found = (low, middle, here[name]) if name in here else (middle, high, found)
    return high, found


def _births(run: Run) -> Iterator[tuple[str, Any, tuple[Any, ...], str]]:
    for number, eqn in enumerate(run.jaxpr.eqns):
        child = run.inner.get(number)
        if child is not None:
            yield from _births(child)
            continue
        outs = [run.read(var) for var in eqn.outvars if nonfinite.is_inexact(var.aval)]
        bad = [out for out in outs if not nonfinite.is_clean(out)]
        if bad and all(nonfinite.is_clean(one) for one in run.ins(eqn) if nonfinite.is_inexact(one)):
            element = nonfinite.host(bad[0])[nonfinite.first(nonfinite.bad(bad[0]))]
            yield eqn.primitive.name, eqn, run.eqns, nonfinite.kind_of(element)
