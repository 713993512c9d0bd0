"""Runs whose values come from one compiled program: for faults that only the compiler's version has, and for sharded bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from nandetect import compat
from nandetect.interpret import walk
from nandetect.interpret.walk import Run


def run(like: Run, args: Sequence[Any], keep: Callable[[Any], bool] = lambda var: True) -> Run:
    """The jaxpr of `like` compiled as one program, with every intermediate that `keep` accepts as a result of it too.

    What is kept must be stored, which can stop the compiler from fusing it away: the fewer, the closer to the program as it was.
    """
    fresh = Run(like.jaxpr, like.consts, like.path, like.eqns, like.entry, like.parent, like.operands, like.order, tape=like.tape)
    fill(fresh, args, jax.jit, lambda value: value, keep)
    return fresh


def fill(
    empty: Run,
    args: Sequence[Any],
    lift: Callable[[Callable[..., Any]], Callable[..., Any]],
    show: Callable[[Any], Any],
    keep: Callable[[Any], bool] = lambda var: True,
    leaf: Callable[..., list[Any]] = compat.bind,
) -> list[Run]:
    """Trace a run under `lift`, run it, and put what `show` made of each traced value in its place. All runs that were filled."""
    runs: list[Run] = []

    def program(*args: Any) -> list[dict[int, Any]]:
        walk.run(empty, args, leaf=leaf)
        runs[:] = _all(empty)
        return [{number: show(value) for number, (var, value) in enumerate(one.values.items()) if keep(var)} for one in runs]

    results = lift(program)(*args)
    for one, values in zip(runs, results, strict=True):
        names = list(one.values)
        one.values = {names[number]: value for number, value in values.items()}
    return runs


def _all(run: Run) -> list[Run]:
    return [run, *(found for child in run.inner.values() for found in _all(child))]
