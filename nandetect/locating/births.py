"""Every birth of a run, also those that no symptom descends from; inside a loop, those of its first iteration that has one."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret import loops, marks
from nandetect.interpret.marks import Mark, any_of
from nandetect.interpret.walk import Run
from nandetect.locating import log_space
from nandetect.locating.trail import Node, is_neutral

# An equation, and the number of the output that was born there.
Birthplace = tuple[Node, int]


def births(run: Run, in_loops: bool = False) -> list[Birthplace]:
    """Every birth in a run, in run-time order; with `in_loops` also those of each loop's first iteration that has one."""
    places: list[Birthplace] = []
    for number, eqn in enumerate(run.jaxpr.eqns[: run.done]):
        if number in run.inner:
            places += births(run.inner[number], in_loops)
        elif primitives.of(eqn).loops:
            places += _in_loop(Node(run, number)) if in_loops else []
        elif not primitives.of(eqn).spreads:
            # What shards made is born within them.
            places += _born_at(Node(run, number))
    return places


def _born_at(node: Node) -> list[Birthplace]:
    """The outputs of one equation that were born there, taken as whole arrays."""
    run, eqn = node.run, node.eqn
    known = [(output, run.values[var]) for output, var in enumerate(eqn.outvars) if var in run.values and nonfinite.is_inexact(var.aval)]
    bad = [(output, value) for output, value in known if not nonfinite.is_clean(value)]
    if not bad:
        return []
    ins = [run.read(atom) for atom in eqn.invars if nonfinite.is_inexact(atom.aval)]
    has_nan = np.asarray(any(nonfinite.nans(x).any() for x in ins))
    has_inf = np.asarray(any((nonfinite.bad(x) & ~nonfinite.nans(x)).any() for x in ins))
    return [
        (node, output)
        for output, value in bad
        if nonfinite.born(np.asarray(True), np.asarray(nonfinite.nans(value).any()), has_nan, has_inf) and not _was_meant(node, value)
    ]


def _was_meant(node: Node, value: Array) -> bool:
    mask = nonfinite.bad(value)
    return is_neutral(node.eqn, value, mask) or bool(log_space.meant(node.run, node.number, mask)[0][mask].all())


def _in_loop(node: Node) -> list[Birthplace]:
    """The births in the first iteration of a loop that has one."""
    loop = loops.opened(node.run, node.number)
    step = int(marks.when(loop, Mark(_is_born))[0, 0])
    return [] if step < 0 else births(loops.iteration(node.run, node.number, loop, step).run, True)


def _is_born(eqn: JaxprEqn, ins: Sequence[Array], outs: Sequence[Array]) -> jax.Array | None:
    """Whether something is born at an equation that is traced."""
    inexact = [out for out in outs if nonfinite.is_inexact(out)]
    if not inexact:
        return None
    floating = [x for x in ins if nonfinite.is_inexact(x)]
    has_nan, has_inf = any_of(jnp.isnan(x) for x in floating), any_of(jnp.isinf(x) for x in floating)
    return any_of(nonfinite.born(any_of([~jnp.isfinite(out)]), any_of([jnp.isnan(out)]), has_nan, has_inf) for out in inexact)
