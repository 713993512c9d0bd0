"""Derivatives of exact values by differences at steps far below what any type can hold.

They are for functions that have a derivative where its formula is 0/0 or 0 * inf, as in the branch that a `where` guards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from flint import arb, ctx

from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.truth.balls import NAN, ZERO, Unclear, two_to
from nandetect.truth.elementwise import decided
from nandetect.truth.formula import KNOWN_BITS, Exact
from nandetect.truth.table import each, lifted
from nandetect.truth.values import Values

# Negative powers of two: the step, below anything that a type of 32 bits or less can hold, and the number below which all counts as zero.
STEP, NOTHING = 400, 300
# The same two for float64.
WIDE_STEP, WIDE_NOTHING = 1300, 1200
# Bits by which the second of the two steps is shorter.
SHORTER = 8
PRECISIONS = (2048, 8192)


def gradient(function: Callable[..., Pytree], argnum: int = 0) -> Callable[..., Pytree]:
    """The derivative of a scalar function by JAX's formula; `truth.of(truth.gradient(f), *args)` gives its exact values."""
    return jax.grad(function, argnums=argnum)


def derivative_at(exact: Exact, args: Sequence[Pytree], argnum: int = 0) -> Values:
    """The derivative of the exact scalar value itself with respect to an argument that is one array; NaN where it has none.

    Each element is a central difference. Where the function is smooth, the derivatives from either side differ by no more than the step
    times its second derivative, and the central difference with a shorter step by less. Both differences make the radius, which must be far
    below the derivative, or count as zero with it. Raises `UsageError` where the value is no scalar, or has no exact rule.
    """
    if not exact.is_exact:
        raise UsageError(f"there is no exact derivative: {', '.join(exact.unsupported)} has no exact rule")
    leaves = [jax.tree.leaves(arg) for arg in args]
    if len(leaves[argnum]) != 1:
        raise UsageError(f"argument {argnum} is not one array, so that its derivative is not one either")
    flat = [leaf for group in leaves for leaf in group]
    position = sum(map(len, leaves[:argnum]))
    wide = np.asarray(flat[position]).dtype == np.float64
    step, nothing = (two_to(-WIDE_STEP), two_to(-WIDE_NOTHING)) if wide else (two_to(-STEP), two_to(-NOTHING))
    derivatives = np.empty(np.shape(flat[position]), object)
    derivatives.fill(NAN)
    for precision in PRECISIONS:
        with ctx.workprec(precision):
            _fill(derivatives, exact, flat, position, step, nothing)
    return Values(derivatives)


def _fill(derivatives: np.ndarray, exact: Exact, flat: list[Array], position: int, step: arb, nothing: arb) -> None:
    """Replace the elements that are still NaN by the derivatives that the precision in force can find."""
    centre = each(decided, lifted(flat[position]))

    def value(index: tuple[int, ...], shift: arb) -> arb:
        moved = np.array(centre)
        moved[index] = moved[index] + shift
        return _scalar(exact.at_leaves([*flat[:position], moved, *flat[position + 1 :]], (ctx.prec,), known=lambda ball: True)[0])

    # The value where no element is moved.
    centre_value: arb | None = None
    for index in np.ndindex(derivatives.shape):
        if derivatives[index] is not NAN:
            continue
        try:
            centre_value = value(index, ZERO) if centre_value is None else centre_value
            long, short = (
                _slope(value(index, -width), centre_value, value(index, width), width) for width in (step, step * two_to(-SHORTER))
            )
            derivatives[index] = _agreed(long, short, nothing)
        except Unclear:
            continue


def _scalar(values: Values) -> arb:
    if values.shape:
        raise UsageError(f"the derivative of one number is asked for, and the function returns an array of shape {values.shape}")
    return values.balls.item()


def _slope(before: arb, here: arb, after: arb, step: arb) -> arb:
    """The derivative from values on either side, with the difference between the two sides' slopes as the radius."""
    slope, half = (after - before) / (2 * step), (after - 2 * here + before) / (2 * step)
    return (slope + half).union(slope - half)


def _agreed(long: arb, short: arb, nothing: arb) -> arb:
    """The derivative that both steps agree on; NaN where they do not, or there are too few bits to tell."""
    slope = long.union(short)
    if not slope.is_finite():
        return NAN
    if slope.rel_accuracy_bits() >= KNOWN_BITS:
        return slope
    return ZERO if slope.abs_upper() < nothing else NAN
