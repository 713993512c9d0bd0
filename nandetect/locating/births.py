"""Every birth of a run, also those that no symptom descends from; inside a loop, those of its first iteration that has one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret import loops, walk
from nandetect.interpret.loops import Loop
from nandetect.interpret.walk import Run
from nandetect.locating.trail import Node

# An equation, and the number of the output that was born there.
Birthplace = tuple[Node, int]
# What a loop carries while it is watched: the iteration, the first one with a birth (-1 before it), the loop's own carried values.
State = tuple[jax.Array, jax.Array, list[Array]]


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
        if nonfinite.born(np.asarray(True), np.asarray(nonfinite.nans(value).any()), has_nan, has_inf)
    ]


def _in_loop(node: Node) -> list[Birthplace]:
    """The births in the first iteration of a loop that has one."""
    loop = loops.opened(node.run, node.number)
    step = int(_first(loop))
    return [] if step < 0 else births(loops.iteration(node.run, node.number, loop, step).run, True)


def _first(loop: Loop) -> jax.Array:
    """The first iteration of a loop with a birth in it, or -1."""

    def watched(consts: list[Array], init: list[Array], rows: list[Array]) -> jax.Array:
        if loop.rewind is not None:
            loop.rewind()
        return _watch(loop, consts, init, rows)[1]

    return jax.jit(watched)(list(loop.consts), list(loop.init), list(loop.rows))


def _watch(loop: Loop, consts: Sequence[Array], init: Sequence[Array], rows: Sequence[Array]) -> tuple[list[Array], jax.Array]:
    """The results of a loop, and its first iteration with a birth (-1 for none), as it is traced."""

    def body(carry: Sequence[Array], row: Sequence[Array]) -> tuple[list[Array], jax.Array]:
        seen: list[jax.Array] = []
        jaxpr, own = compat.open_jaxpr(loop.body)
        run = Run(jaxpr, own)
        walk.run(run, [*consts, *carry, *row], leaf=lambda eqn, ins: _leaf(eqn, ins, seen))
        return [run.read(atom) for atom in jaxpr.outvars], jnp.any(jnp.array([False, *seen]))

    condition = loop.condition
    if condition is None:

        def scanned(state: State, row: list[Array]) -> tuple[State, list[Array]]:
            step, first, carry = state
            outs, bad = body(carry, row)
            first = jnp.where((first < 0) & bad, step, first)
            return (step + 1, first, outs[: loop.carry]), outs[loop.carry :]

        start = (jnp.int32(0), jnp.int32(-1), list(init))
        (_, first, carry), stacked = lax.scan(scanned, start, list(rows), loop.length, loop.reverse)
        return [*carry, *stacked], first

    def iterate(state: State) -> State:
        step, first, carry = state
        outs, bad = body(carry, ())
        return step + 1, jnp.where((first < 0) & bad, step, first), loop.kept(carry, outs)

    start = (jnp.int32(0), jnp.int32(-1), list(init))
    _, first, carry = lax.while_loop(lambda state: jnp.any(condition(*state[2])), iterate, start)
    return list(carry), first


def _leaf(eqn: JaxprEqn, ins: Sequence[Array], seen: list[jax.Array]) -> Sequence[Array]:
    """The results of an equation while it is traced; `seen` is told whether one of them was born there."""
    if primitives.of(eqn).loops:
        loop = loops.open_loop(eqn, ins)
        outs, first = _watch(loop, loop.consts, loop.init, loop.rows)
        seen.append(first >= 0)
        return outs
    outs = compat.bind(eqn, ins)
    floating = [x for x in ins if nonfinite.is_inexact(x)]
    has_nan = _any(jnp.isnan(x) for x in floating)
    has_inf = _any(jnp.isinf(x) for x in floating)
    for out in outs:
        if nonfinite.is_inexact(out):
            seen.append(nonfinite.born(_any([~jnp.isfinite(out)]), _any([jnp.isnan(out)]), has_nan, has_inf))
    return outs


def _any(masks: Iterable[jax.Array]) -> jax.Array:
    return jnp.any(jnp.array([False, *map(jnp.any, masks)]))
