"""Derivatives of exact values by differences at steps far below what any type can hold.

Where a formula is differentiable but its derivative's formula is 0/0 or 0 * inf, as in the branch that a `where` guards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flint import arb

from nandetect.errors import UsageError
from nandetect.truth.balls import NAN, ZERO, two_to
from nandetect.truth.elementwise import decided
from nandetect.truth.formula import KNOWN_BITS, Exact
from nandetect.truth.table import each, lifted
from nandetect.truth.values import Values

# The longer step is 2^-400, below anything that a type of 32 bits or less can hold, or 2^-1300 for float64; the shorter one this much less.
STEP, WIDE_STEP, SHORTER = 400, 1300, 64
# A kink shows itself as a gap between the two sides that does not shrink with the step.
SHRUNK = 32
PRECISIONS = (2048, 8192)


def gradient(function: Callable[..., Any], argnum: int = 0) -> Callable[..., Any]:
    """The derivative of a scalar function as JAX's formula: `truth.of(truth.gradient(f), *args)` is what that formula means."""
    return jax.grad(function, argnums=argnum)


def derivative_at(exact: Exact, args: Sequence[Any], argnum: int = 0) -> Values:
    """The derivative of the exact scalar value itself with respect to an argument that is one array; NaN where it has none.

    Each element is a central difference. The difference between the derivatives from either side, which goes to 0 with the step where the
    function is smooth, bounds its error and is the radius. Raises `UsageError` where the value is no scalar, or has no exact rule.
    """
    if not exact.is_exact:
        raise UsageError(f"there is no exact derivative: {', '.join(exact.unsupported)} has no exact rule")
    leaves = [jax.tree.leaves(arg) for arg in args]
    if len(leaves[argnum]) != 1:
        raise UsageError(f"argument {argnum} is not one array, so that its derivative is not one either")
    flat = [leaf for group in leaves for leaf in group]
    place = sum(map(len, leaves[:argnum]))
    point = np.asarray(flat[place])
    exponent = WIDE_STEP if point.dtype == np.float64 else STEP
    centre = each(decided, lifted(point))
    out = np.empty(point.shape, object)
    for index in np.ndindex(point.shape):
        out[index] = slope(lambda shift, at=index: _moved(exact, flat, place, centre, at, shift), exponent)
    return Values(out)


def _moved(exact: Exact, flat: Sequence[Any], place: int, centre: np.ndarray, index: tuple[int, ...], shift: arb) -> Callable[[int], arb]:
    """The value with one element moved, at a given precision."""
    moved = np.array(centre)
    moved[index] = exact_sum(moved[index], shift)
    leaves = [*flat[:place], moved, *flat[place + 1 :]]

    def at(precision: int) -> arb:
        (value,) = exact.at_leaves(leaves, (precision,), known=lambda ball: True)
        if value.shape:
            raise UsageError(f"the derivative of one number is asked for, and the function returns an array of shape {value.shape}")
        return value.balls[()]

    return at
