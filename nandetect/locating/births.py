"""Every birth of a run, also those that no symptom descends from; and those inside its loops, at the iteration of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nandetect import compat, nonfinite
from nandetect.interpret import walk
from nandetect.interpret.walk import LOOPS, Run
from nandetect.locating import loops
from nandetect.locating.trail import Node

Birthplace = tuple[Node, int]


def births(run: Run, in_loops: bool = False) -> list[Birthplace]:
    """(equation, output) of every birth in a run, in run-time order; with `in_loops` also those of a loop's first bad iteration."""
    found = []
    for number, eqn in enumerate(run.jaxpr.eqns[: run.done]):
        if number in run.inner:
            found += births(run.inner[number], in_loops)
        elif eqn.primitive.name not in LOOPS:
            found += _born_at(Node(run, number))
        elif in_loops:
            found += _in_loop(Node(run, number))
    return found


def _born_at(node: Node) -> list[Birthplace]:
    """The outputs of one equation that are non-finite from finite operands, or NaN from inf without NaN."""
    values = node.run.values
    return [
        (node, output)
        for output, var in enumerate(node.eqn.outvars)
        if var in values and nonfinite.is_inexact(var.aval) and not nonfinite.is_clean(values[var]) and _born(node, values[var])
    ]


def _born(node: Node, value: Any) -> bool:
    floating = [node.run.read(atom) for atom in node.eqn.invars if nonfinite.is_inexact(atom.aval)]
    if all(map(nonfinite.is_clean, floating)):
        return True
    return bool(nonfinite.nans(value).any()) and not any(nonfinite.nans(x).any() for x in floating)


def _in_loop(node: Node) -> list[Birthplace]:
    loop = loops.opened(node)
    step = int(_first(loop))
    return [] if step < 0 else births(loops.iteration(node, loop, step)[0], True)


def _first(loop: loops.Loop) -> Any:
    """The first iteration of a loop with a birth in it, or -1."""

    def watched(consts: Any, init: Any, rows: Any) -> Any:
        if loop.rewind is not None:
            loop.rewind()
        return _watch(loop, consts, init, rows)[1]

    return jax.jit(watched)(list(loop.consts), list(loop.init), list(loop.rows))


def _watch(loop: loops.Loop, consts: Sequence[Any], init: Sequence[Any], rows: Sequence[Any]) -> tuple[list[Any], Any]:
    """The results of a loop and its first iteration with a birth, while it is traced."""

    def body(carry: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], Any]:
        seen: list[Any] = []
        jaxpr, own = compat.open_jaxpr(loop.body)
        run = Run(jaxpr, own)
        walk.run(run, [*consts, *carry, *row], leaf=lambda eqn, ins: _leaf(eqn, ins, seen))
        return [run.read(atom) for atom in jaxpr.outvars], jnp.any(jnp.array([False, *seen]))

    if loop.condition is None:

        def scanned(state: Any, row: Any) -> Any:
            step, first, carry = state
            outs, bad = body(carry, row)
            first = jnp.where((first < 0) & bad, step, first)
            return (step + 1, first, outs[: loop.carry]), outs[loop.carry :]

        start = (jnp.int32(0), jnp.int32(-1), list(init))
        (_, first, carry), stacked = lax.scan(scanned, start, list(rows), loop.length, loop.reverse)
        return [*carry, *stacked], first

    def iterate(state: Any) -> Any:
        step, first, carry = state
        outs, bad = body(carry, ())
        return step + 1, jnp.where((first < 0) & bad, step, first), loop.kept(carry, outs)

    start = (jnp.int32(0), jnp.int32(-1), list(init))
    _, first, carry = lax.while_loop(lambda state: jnp.any(loop.condition(*state[2])), iterate, start)
    return list(carry), first


def _leaf(eqn: Any, ins: Sequence[Any], seen: list[Any]) -> list[Any]:
    if eqn.primitive.name in LOOPS:
        loop = loops.open_loop(eqn, ins)
        outs, first = _watch(loop, loop.consts, loop.init, loop.rows)
        seen.append(first >= 0)
        return outs
    outs = compat.bind(eqn, ins)
    floating = [x for x in ins if nonfinite.is_inexact(x)]
    clean = jnp.all(jnp.array([True, *(jnp.all(jnp.isfinite(x)) for x in floating)]))
    numbers = jnp.all(jnp.array([True, *(~jnp.any(jnp.isnan(x)) for x in floating)]))
    for out in outs:
        if nonfinite.is_inexact(out):
            seen.append((clean & ~jnp.all(jnp.isfinite(out))) | (numbers & jnp.any(jnp.isnan(out))))
    return outs
