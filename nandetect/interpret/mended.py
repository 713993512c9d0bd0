"""A program run as if some of its equations had not broken: would the results be sound without them?

What such an equation itself made non-finite is given a plain number, wherever it runs; what it was given non-finite stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from nandetect import nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret import loops, walk
from nandetect.interpret.loops import Loop
from nandetect.interpret.walk import Leaf

# What stands for a broken element: in the domain of every function that has one (a logarithm, an arc cosine), and no number that cancels.
SOUND = 0.7310586


def leaf(broken: Iterable[JaxprEqn], around: Iterable[JaxprEqn] = ()) -> Leaf:
    """How equations are computed where the `broken` ones are mended; `around` are those that any of them stands in."""
    return _leaf(frozenset(map(id, broken)), frozenset(map(id, around)), None)


def _leaf(mended: frozenset[int], entered: frozenset[int], most: int | None) -> Leaf:
    """See `leaf`; `most` is how many iterations a `while` within a loop has at most."""

    def compute(eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
        outs = inside(eqn, ins)
        return [_sound(out, ins) for out in outs] if id(eqn) in mended else outs

    def inside(eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
        if primitives.of(eqn).loops and (id(eqn) in entered or loops.holds_while(eqn)):
            bound = most or loops.most_iterations(eqn)
            return _loop(loops.open_loop(eqn, ins), _leaf(mended, entered, bound), bound)
        if eqn.primitive.name == "cond" and id(eqn) in entered:
            branches = [walk.traced(branch, compute) for branch in eqn.params["branches"]]
            return lax.switch(jnp.int32(ins[0]), branches, *ins[1:])
        return walk.evaluate(eqn, ins)

    return compute


def _loop(loop: Loop, how: Leaf, most: int) -> Sequence[Array]:
    body, condition = walk.traced(loop.body, how), loop.condition
    if condition is None:

        def scanned(carry: Sequence[Array], row: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
            outs = body(*loop.consts, *carry, *row)
            return outs[: loop.carry], outs[loop.carry :]

        carry, stacked = lax.scan(scanned, list(loop.init), list(loop.rows), loop.length, loop.reverse)
        return [*carry, *stacked]

    return bounded(condition, lambda carry: loop.kept(carry, body(*loop.consts, *carry)), list(loop.init), most)


def bounded(condition: Callable[..., jax.Array], body: Callable[[list[Array]], list[Array]], init: list[Array], most: int) -> list[Array]:
    """A `while` that ends after the most iterations that it is given, whatever its condition waits for."""

    def go_on(state: tuple[jax.Array, list[Array]]) -> jax.Array:
        return (state[0] < most) & jnp.any(condition(*state[1]))

    def iterate(state: tuple[jax.Array, list[Array]]) -> tuple[jax.Array, list[Array]]:
        return state[0] + 1, body(state[1])

    return lax.while_loop(go_on, iterate, (jnp.int32(0), init))[1]


def _sound(out: Array, ins: Sequence[Array]) -> Array:
    """A result with a plain number in place of what its equation made non-finite."""
    if not nonfinite.is_inexact(out):
        return out
    # The same arithmetic by numpy, or traced.
    numbers: Any = jnp if isinstance(out, Tracer) else np
    value = out if isinstance(out, Tracer) else nonfinite.host(out)
    has_nan = has_inf = numbers.zeros(np.shape(out), bool)
    for x in ins:
        if nonfinite.is_inexact(x):
            given = x if isinstance(x, Tracer) else nonfinite.host(x)
            nan, inf = numbers.isnan(given), numbers.isinf(given)
            alike = np.shape(x) == np.shape(out)
            has_nan, has_inf = has_nan | (nan if alike else nan.any()), has_inf | (inf if alike else inf.any())
    born = nonfinite.born(~numbers.isfinite(value), numbers.isnan(value), has_nan, has_inf)
    return numbers.where(born, numbers.asarray(SOUND, value.dtype), value).astype(out.dtype)


def argument(value: Array) -> Array:
    """An argument with a plain number in place of what is non-finite in it."""
    return _sound(value, ()) if not nonfinite.is_clean(value) else value
