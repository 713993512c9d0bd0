"""Runs whose values come from one compiled program, for faults that only the compiler's version of the program has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from nandetect import walk
from nandetect.walk import Run


def run(like: Run, args: Sequence[Any], keep: Callable[[Any], bool] = lambda var: True) -> Run:
    """The jaxpr of `like` compiled as one program, with every intermediate that `keep` accepts as a result of it too.

    What is kept must be stored, which can stop the compiler from fusing it away: the fewer, the closer to the program as it was.
    """
    runs: list[Run] = []

    def program(args: Sequence[Any]) -> list[dict[int, Any]]:
        fresh = Run(like.jaxpr, like.consts, like.path, like.eqns, like.context, like.parent, like.operands, like.order)
        walk.run(fresh, args)
        runs[:] = _all(fresh)
        return [{number: value for number, (var, value) in enumerate(one.values.items()) if keep(var)} for one in runs]

    results = jax.jit(program)(list(args))
    for one, values in zip(runs, results, strict=True):
        names = list(one.values)
        one.values = {names[number]: value for number, value in values.items()}
    return runs[0]


def _all(run: Run) -> list[Run]:
    return [run, *(found for child in run.inner.values() for found in _all(child))]
