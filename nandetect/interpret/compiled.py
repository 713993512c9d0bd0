"""Runs whose values come from one compiled program: for faults that only the compiler's version has, and for sharded bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from nandetect import compat
from nandetect.annotations import Array
from nandetect.compat import Var
from nandetect.interpret import walk
from nandetect.interpret.walk import Leaf, Run

# Whether the value of a variable is kept; and a program that returns the kept values of each run, by the number of the variable.
Keep = Callable[[Var], bool]
Traced = Callable[..., list[dict[int, Array]]]


def run(like: Run, args: Sequence[Array], keep: Keep = lambda var: True) -> Run:
    """The jaxpr of `like` compiled as one program, with every intermediate that `keep` accepts as a result of it too.

    What is kept must be stored, which can stop the compiler from fusing it away: the fewer, the closer to the program as it was.
    """
    fresh = Run(like.jaxpr, like.consts, like.path, like.eqns, like.entry, like.parent, like.operands, like.order, tape=like.tape)
    fill(fresh, args, jax.jit, lambda value: value, keep)
    return fresh


def fill(
    empty: Run,
    args: Sequence[Array],
    lift: Callable[[Traced], Traced],
    show: Callable[[Array], Array],
    keep: Keep = lambda var: True,
    leaf: Leaf = compat.bind,
) -> list[Run]:
    """Fill a run, and those within it, from one program that `lift` makes of its trace; returns all of them.

    `show` makes of each traced value what the program returns.
    """
    runs: list[Run] = []

    def program(*args: Array) -> list[dict[int, Array]]:
        walk.run(empty, args, leaf=leaf)
        runs[:] = _all(empty)
        return [{number: show(value) for number, (var, value) in enumerate(filled.values.items()) if keep(var)} for filled in runs]

    results = lift(program)(*args)
    for filled, values in zip(runs, results, strict=True):
        variables = list(filled.values)
        filled.values = {variables[number]: value for number, value in values.items()}
    return runs


def _all(run: Run) -> list[Run]:
    """A run and all runs within it."""
    return [run, *(within for child in run.inner.values() for within in _all(child))]
