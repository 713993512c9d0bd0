"""Numbers as balls, by python-flint (https://arblib.org): a midpoint, and a radius that bounds the error.

An infinity and a NaN are always exact. Where a ball is too wide to tell whether a result is finite, or which of two numbers is larger,
`Unclear` is raised and everything is computed again with more bits. At the last precision everything is decided: see `split`.
"""

from __future__ import annotations

from flint import arb, ctx, fmpz

INF, NEGATIVE_INF, NAN, ZERO, ONE = arb.pos_inf(), arb.neg_inf(), arb.nan(), arb(0), arb(1)
# Precisions, the bits of the midpoints, tried in turn. At the last one two balls that overlap are taken to be equal.
LADDER = (128, 512, 2048, 8192)
LAST = LADDER[-1]


class Unclear(ArithmeticError):
    """A decision needs more bits: two balls overlap, or one holds a point at which a function breaks."""


def nearest(x: arb) -> fmpz:
    """The integer nearest to the midpoint of a finite ball; a half goes up."""
    mantissa, exponent = x.mid().man_exp()
    if exponent >= 0:
        return mantissa << exponent
    shift = -exponent
    return (mantissa + (fmpz(1) << (shift - 1))) >> shift


def tiny(x: arb, beside: arb) -> bool:
    """Whether adding x to `beside` would change none of the leading half of its bits. Both are finite."""
    return bool(x.abs_upper() < beside.abs_lower() * two_to(-ctx.prec // 2))


def two_to(exponent: int) -> arb:
    """A power of two, exactly."""
    return arb((fmpz(1), fmpz(exponent)))


def holds_zero(x: arb) -> bool:
    """Whether a ball holds zero and other numbers too."""
    return not x.is_zero() and x.contains(0)
