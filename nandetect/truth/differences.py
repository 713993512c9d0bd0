"""Derivatives of exact values by differences at steps far below what any type can hold.

They are for formulas that are differentiable where their derivative's formula is 0/0 or 0 * inf, as in the branch that a `where` guards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from flint import arb, ctx

from nandetect.errors import UsageError
from nandetect.truth.balls import NAN, ZERO, Unclear, two_to
from nandetect.truth.elementwise import decided
from nandetect.truth.formula import KNOWN_BITS, Exact
from nandetect.truth.table import each, lifted
from nandetect.truth.values import Values
from nandetect.types import Array, Pytree

# The step, as a negative power of two, below anything that a type of 32 bits or less can hold; and what counts as zero beside it.
STEP, NOTHING = 400, 300
# The same where float64 is meant.
WIDE_STEP, WIDE_NOTHING = 1300, 1200
# Bits by which the second step is shorter.
SHORTER = 8
PRECISIONS = (2048, 8192)


def gradient(function: Callable[..., Pytree], argnum: int = 0) -> Callable[..., Pytree]:
    """The derivative of a scalar function as JAX's formula: `truth.of(truth.gradient(f), *args)` is what that formula means."""
    return jax.grad(function, argnums=argnum)


def derivative_at(exact: Exact, args: Sequence[Pytree], argnum: int = 0) -> Values:
    """The derivative of the exact scalar value itself with respect to an argument that is one array; NaN where it has none.

    Each element is a central difference. Where the function is smooth, the derivatives from either side differ by no more than the step
    times its second derivative, and the central difference with a shorter step by less. Both are the radius, and must be nothing
    beside the derivative, or nothing at all. Raises `UsageError` where the value is no scalar, or has no exact rule.
    """
    if not exact.is_exact:
        raise UsageError(f"there is no exact derivative: {', '.join(exact.unsupported)} has no exact rule")
    leaves = [jax.tree.leaves(arg) for arg in args]
    if len(leaves[argnum]) != 1:
        raise UsageError(f"argument {argnum} is not one array, so that its derivative is not one either")
    flat = [leaf for group in leaves for leaf in group]
    place = sum(map(len, leaves[:argnum]))
    wide = np.asarray(flat[place]).dtype == np.float64
    step, nothing = (two_to(-WIDE_STEP), two_to(-WIDE_NOTHING)) if wide else (two_to(-STEP), two_to(-NOTHING))
    out = np.empty(np.shape(flat[place]), object)
    out.fill(NAN)
    for precision in PRECISIONS:
        with ctx.workprec(precision):
            _fill(out, exact, flat, place, step, nothing)
    return Values(out)


def _fill(out: np.ndarray, exact: Exact, flat: list[Array], place: int, step: arb, nothing: arb) -> None:
    """Put the derivatives that the precision in force finds in the places that are NaN."""
    centre = each(decided, lifted(flat[place]))

    def value(index: tuple[int, ...], shift: arb) -> arb:
        moved = np.array(centre)
        moved[index] = moved[index] + shift
        return _scalar(exact.at_leaves([*flat[:place], moved, *flat[place + 1 :]], (ctx.prec,), known=lambda ball: True)[0])

    # The value where no element is moved.
    at_centre: arb | None = None
    for index in np.ndindex(out.shape):
        if out[index] is not NAN:
            continue
        try:
            at_centre = value(index, ZERO) if at_centre is None else at_centre
            long, short = (_slope(value(index, -width), at_centre, value(index, width), width) for width in (step, step * two_to(-SHORTER)))
            out[index] = _agreed(long, short, nothing)
        except Unclear:
            continue


def _scalar(values: Values) -> arb:
    if values.shape:
        raise UsageError(f"the derivative of one number is asked for, and the function returns an array of shape {values.shape}")
    return values.balls.item()


def _slope(before: arb, here: arb, after: arb, step: arb) -> arb:
    """The derivative from values on either side, with the difference between the sides as the radius."""
    slope, half = (after - before) / (2 * step), (after - 2 * here + before) / (2 * step)
    return (slope + half).union(slope - half)


def _agreed(long: arb, short: arb, nothing: arb) -> arb:
    """What both steps say; NaN where that is not one number, or there are too few bits to say."""
    slope = long.union(short)
    if not slope.is_finite():
        return NAN
    if slope.rel_accuracy_bits() >= KNOWN_BITS:
        return slope
    return ZERO if slope.abs_upper() < nothing else NAN
