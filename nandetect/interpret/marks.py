"""Whether something happens in a program, and in which iterations of a loop: seen in one compiled run, however long the loops are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import compat, primitives
from nandetect.annotations import Array
from nandetect.compat import AnyJaxpr, Jaxpr, JaxprEqn
from nandetect.interpret import loops, walk
from nandetect.interpret.loops import Loop
from nandetect.interpret.walk import Run
from nandetect.program.trace import Program

# What a loop carries while it is watched: the iteration, when each kind happened so far, the loop's own carried values.
State = tuple[jax.Array, jax.Array, list[Array]]
# Whether it happens at an equation, given its operands and its results, or which of the `kinds`; None where it never can.
At = Callable[[JaxprEqn, Sequence[Array], Sequence[Array]], jax.Array | None]
# Given an equation with its operands and its results, and the iterations of the loops around it, outermost first: other results.
Instead = Callable[[JaxprEqn, Sequence[Array], Sequence[Array], Sequence[jax.Array]], Sequence[Array]]


@dataclass(frozen=True)
class Mark:
    """What is looked for; with `in_conditions`, also in the condition of a `while`, as part of the iteration that it lets run or ends."""

    at: At = lambda eqn, ins, outs: None
    in_conditions: bool = False
    # How many things are looked for at once, each told by itself.
    kinds: int = 1
    # What is gone on with in place of an equation's results. A `while` then ends after the `most` iterations, whatever it waits for.
    instead: Instead | None = None
    most: int | None = None
    # The iterations of the loops around what is traced.
    within: tuple[jax.Array, ...] = ()

    def inside(self, step: jax.Array) -> Mark:
        """The same in an iteration of a loop."""
        return replace(self, within=(*self.within, step))


def happens(program: Program, mark: Mark) -> np.ndarray:
    """Which kinds happen anywhere in a run of a program that has no callbacks."""
    return np.asarray(jax.jit(lambda *args: _marked(program.jaxpr, program.consts, args, mark)[1])(*program.args))


def results(jaxpr: Jaxpr, consts: list[Array], args: Sequence[Array], instead: Instead) -> list[Array]:
    """The results of a program with others in place of some of its equations', as it is traced."""
    return _marked(jaxpr, consts, args, Mark(in_conditions=True, instead=instead))[0]


def when(loop: Loop, mark: Mark) -> np.ndarray:
    """Iterations of a loop in which each kind happens (-1: none): the first, the last after one without, the last; int32[3, kinds]."""

    def watched(consts: list[Array], init: list[Array], rows: list[Array]) -> jax.Array:
        if loop.rewind is not None:
            loop.rewind()
        return _watched(loop, consts, init, rows, mark)[1]

    return np.asarray(jax.jit(watched)(list(loop.consts), list(loop.init), list(loop.rows)))


def _of(body: AnyJaxpr, args: Sequence[Array], mark: Mark) -> tuple[list[Array], jax.Array]:
    return _marked(*compat.open_jaxpr(body), args, mark)


def _marked(jaxpr: Jaxpr, consts: list[Array], args: Sequence[Array], mark: Mark) -> tuple[list[Array], jax.Array]:
    """The results of a jaxpr, and which kinds happened in it, as it is traced."""
    seen: list[jax.Array] = []
    run = Run(jaxpr, consts)
    walk.run(run, args, leaf=lambda eqn, ins: _leaf(eqn, ins, mark, seen))
    values = map(run.read, jaxpr.outvars)
    return [value if isinstance(value, jax.Array) else jnp.asarray(value) for value in values], _either(seen, mark)


def _watched(
    loop: Loop, consts: Sequence[Array], init: Sequence[Array], rows: Sequence[Array], mark: Mark
) -> tuple[list[Array], jax.Array]:
    """The results of a loop, and when each kind happened in it, as it is traced."""
    condition = loop.condition
    never = jnp.full((3, mark.kinds), -1, jnp.int32)
    if condition is None:

        def scanned(state: State, row: list[Array]) -> tuple[State, list[Array]]:
            step, at, carry = state
            outs, happened = _of(loop.body, [*consts, *carry, *row], mark.inside(step))
            return (step + 1, _noted(at, happened, step), outs[: loop.carry]), outs[loop.carry :]

        (_, at, carry), stacked = lax.scan(scanned, (jnp.int32(0), never, list(init)), list(rows), loop.length, loop.reverse)
        return [*carry, *stacked], at

    def tested(carry: Sequence[Array], step: jax.Array) -> jax.Array:
        if loop.test is None or not mark.in_conditions:
            return _either((), mark)
        return _of(loop.test, [*loop.test_consts, *carry], mark.inside(step))[1]

    def goes_on(state: State) -> jax.Array:
        step, _, carry = state
        if loop.test is None or mark.instead is None:
            return jnp.any(condition(*carry))
        return (step < (mark.most or loops.MOST_ITERATIONS)) & jnp.any(_of(loop.test, [*loop.test_consts, *carry], mark.inside(step))[0][0])

    def iterate(state: State) -> State:
        step, at, carry = state
        outs, happened = _of(loop.body, [*consts, *carry], mark.inside(step))
        return step + 1, _noted(at, happened | tested(carry, step), step), loop.kept(carry, outs)

    step, at, carry = lax.while_loop(goes_on, iterate, (jnp.int32(0), never, list(init)))
    return list(carry), _noted(at, tested(carry, step), step)


def _noted(at: jax.Array, happened: jax.Array, step: jax.Array) -> jax.Array:
    first, begun, last = at
    begins = happened & ((last < 0) | (last < step - 1))
    return jnp.stack([jnp.where((first < 0) & happened, step, first), jnp.where(begins, step, begun), jnp.where(happened, step, last)])


def _leaf(eqn: JaxprEqn, ins: Sequence[Array], mark: Mark, seen: list[jax.Array]) -> Sequence[Array]:
    """The results of an equation while it is traced; `seen` is told whether it happened there."""
    if primitives.of(eqn).loops:
        loop = loops.open_loop(eqn, ins)
        if mark.instead is not None:
            mark = replace(mark, most=mark.most or loops.most_iterations(eqn))
        outs, at = _watched(loop, loop.consts, loop.init, loop.rows, mark)
        seen.append(at[0] >= 0)
        return outs
    if primitives.of(eqn).branches and eqn.params.get("branches"):
        branches = [lambda *args, branch=branch: _of(branch, args, mark) for branch in eqn.params["branches"]]
        outs, happened = lax.switch(jnp.int32(ins[0]), branches, *ins[1:])
        seen.append(happened)
    else:
        outs = compat.bind(eqn, ins)
    if mark.instead is not None:
        outs = mark.instead(eqn, ins, outs, mark.within)
    happens = mark.at(eqn, ins, outs)
    if happens is not None:
        seen.append(jnp.broadcast_to(happens, (mark.kinds,)))
    return outs


def _either(seen: Sequence[jax.Array], mark: Mark) -> jax.Array:
    """Which kinds happened at one of several places."""
    return jnp.any(jnp.array([jnp.zeros(mark.kinds, bool), *seen]), axis=0)


def any_of(masks: Iterable[jax.Array]) -> jax.Array:
    """Whether any element of any of these is true."""
    return jnp.any(jnp.array([False, *map(jnp.any, masks)]))
