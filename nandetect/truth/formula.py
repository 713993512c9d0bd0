"""A function as the formula of its jaxpr, and its exact values, computed with more and more bits until every one is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from flint import arb, ctx

from nandetect import compat, nonfinite, widths
from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.truth import evaluate
from nandetect.truth.balls import LADDER, NAN, Unclear, two_to
from nandetect.truth.elementwise import decided
from nandetect.truth.table import each, lifted
from nandetect.truth.values import Values

# A value is known where its ball is 100 bits narrower than the value, or narrower than 2^-1200, below anything that a type holds.
KNOWN_BITS = 100
NOTHING = 1200
IsKnown = Callable[[arb], bool]


def is_known(ball: arb) -> bool:
    """Whether a ball is narrow enough for its value to be known; an infinity and a NaN always are."""
    if not ball.is_finite() or ball.is_exact() or ball.rel_accuracy_bits() >= KNOWN_BITS:
        return True
    return bool(ball.rad() < two_to(-NOTHING))


class Exact:
    """A traced function. `unsupported` names its primitives that have no exact rule.

    Where there are any, the values are those of the function in float64, and `is_exact` is False.
    """

    def __init__(self, function: Callable[..., Pytree], args: Sequence[Pytree]):
        self.function = function
        closed = jax.make_jaxpr(function)(*args)
        self.jaxpr, self.consts = compat.open_jaxpr(closed)
        self.unsupported = tuple(dict.fromkeys(evaluate.unsupported(self.jaxpr)))
        leaves, self.structure = jax.tree.flatten(tuple(args))
        self.shapes = [np.shape(leaf) for leaf in leaves]

    @property
    def is_exact(self) -> bool:
        return not self.unsupported

    def at(self, *args: Pytree) -> list[Values]:
        """The values of the outputs, in the order of their leaves. Raises `UsageError` where the arguments are not like the traced ones."""
        leaves, structure = jax.tree.flatten(args)
        if structure != self.structure or [np.shape(leaf) for leaf in leaves] != self.shapes:
            raise UsageError(f"the function was traced on arguments of shapes {self.shapes}, not {[np.shape(leaf) for leaf in leaves]}")
        return self.at_leaves(leaves) if self.is_exact else self.in_float64(args)

    def at_leaves(self, leaves: Sequence[Array], precisions: Sequence[int] = LADDER, known: IsKnown = is_known) -> list[Values]:
        """The values at flat arguments, which may be object arrays of `flint.arb`, by the first precision at which all are known.

        Raises `Unclear` where none of the precisions decides what must be decided; the last of `LADDER` always does.
        """
        best: list[np.ndarray] | None = None
        for precision in precisions:
            with ctx.workprec(precision), np.errstate(all="ignore"):
                try:
                    outs = evaluate.run(self.jaxpr, self.consts, leaves)
                except Unclear:
                    continue
                balls = [each(decided, lifted(out)) for out in outs]
            best = balls if best is None else [np.where(_mask(known, old), old, new) for old, new in zip(best, balls, strict=True)]
            if all(_mask(known, ball).all() for ball in best):
                break
        if best is None:
            raise Unclear
        return [Values(each(lambda ball: settled(ball, known), balls)) for balls in best]

    def in_float64(self, args: Sequence[Pytree]) -> list[Values]:
        """The values of the function in double precision, which stand in for the truth where a primitive has no exact rule."""
        with widths.double():
            wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) if nonfinite.is_inexact(np.asarray(leaf)) else leaf, tuple(args))
            outs = [np.asarray(out) for out in jax.tree.leaves(self.function(*wide))]
        return [Values(each(decided, lifted(out))) for out in outs]


def of(function: Callable[..., Pytree], *args: Pytree) -> Exact:
    """A function as the formula of its jaxpr on these arguments."""
    return Exact(function, args)


def settled(ball: arb, known: IsKnown = is_known) -> arb:
    """A ball as a result: zero where it is below what any type holds, NaN where it is too wide at every precision."""
    if not known(ball):
        return NAN
    return arb(0) if ball.is_finite() and ball.abs_upper() < two_to(-NOTHING) and ball.rel_accuracy_bits() < KNOWN_BITS else ball


def _mask(known: IsKnown, balls: np.ndarray) -> np.ndarray:
    return np.asarray(each(known, balls), bool)
