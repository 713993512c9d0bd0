"""A program run as if some of its equations had not broken: would the results be sound without them?

What such an equation itself made non-finite is given a plain number, wherever it runs; what it was given non-finite stays so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect import nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret import loops, meshes, shards, walk
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
        enters = id(eqn) in entered or meshes.says_what_varies(eqn)
        if primitives.of(eqn).loops and (enters or loops.holds_while(eqn)):
            bound = most or loops.most_iterations(eqn)
            return loops.traced(loops.open_loop(eqn, ins, _leaf(mended, entered, bound)), bound)
        if primitives.of(eqn).branches and enters:
            return walk.switched(eqn, ins, compute)
        over = shards.entered(eqn, ins) if enters else None
        if over is not None:
            return shards.traced(over, ins, compute)
        return walk.evaluate(eqn, ins)

    return compute


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
