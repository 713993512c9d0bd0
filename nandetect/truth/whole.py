"""Exact rules of the primitives that make whole numbers: rounding, remainders, conversions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flint import fmpz

from nandetect.compat import JaxprEqn
from nandetect.truth.balls import NAN, nearest
from nandetect.truth.elementwise import decided, div, elementwise
from nandetect.truth.order import sign
from nandetect.truth.split import Number
from nandetect.truth.table import each, lifted, number, rule


def _is_whole(x: Number) -> bool:
    """Whether rounding to an integer leaves a number as it is: it is not finite, or so large (2^4096) that no type holds it."""
    return not x.is_finite() or bool(abs(x) > number(2**4096))


def rounding(integer_at: Callable[[fmpz, int], fmpz]) -> Callable[[Number], Number]:
    """A rounding to integers. `integer_at` gives the result from the integer nearest to a number, and the side of it the number is on."""

    def of(x: Number) -> Number:
        if _is_whole(x):
            return x
        middle = nearest(decided(x))
        side = sign(x - number(int(middle)))
        assert side is not None
        return number(int(integer_at(middle, side)))

    return of


def _halfway(x: Number, even: bool) -> Number:
    """The nearest integer; a half goes to the even one (`even`), or away from zero."""
    if _is_whole(x):
        return x
    low = rounding(lambda middle, side: middle - (side < 0))(x)
    side = sign(x - low - number(0.5))
    if side == 0:
        side = int(nearest(decided(low))) % 2 if even else int(sign(x) == 1)
    return low + number(1 if side == 1 else 0)


def rem(x: Number, y: Number) -> Number:
    """The remainder of division towards zero, with the sign of x."""
    if not x.is_finite() or y.is_nan() or sign(y) == 0:
        return number(NAN)
    if not y.is_finite():
        return x
    quotient = div(x, y)
    return x - y * (floor if sign(quotient) == 1 else ceil)(quotient)


floor = rounding(lambda middle, side: middle - (side < 0))
ceil = rounding(lambda middle, side: middle + (side > 0))


@rule("convert_element_type")
def _convert(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    """A conversion: floats stay, integers become exact numbers, to integers the fraction is cut off, booleans are tests of 0."""
    dtype = np.dtype(eqn.params["new_dtype"])
    if dtype.kind not in "biu":
        return [lifted(x)]
    if x.dtype != object:
        return [x.astype(dtype)]
    if dtype.kind == "b":
        return [np.asarray(each(lambda v: sign(v) != 0, x), bool)]
    info = np.iinfo(dtype)
    return [np.asarray(each(lambda v: _cut(v, int(info.min), int(info.max)), x), dtype)]


def _cut(x: Number, least: int, most: int) -> int:
    """A number without its fraction, kept within an integer type as XLA keeps it; 0 of a NaN."""
    if x.is_nan():
        return 0
    if x > number(most):
        return most
    if x < number(least):
        return least
    return int(nearest(decided((floor if sign(x) == 1 else ceil)(x))))


@rule("round")
def _round(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    even = "EVEN" in getattr(eqn.params["rounding_method"], "name", "")
    return [each(lambda v: _halfway(v, even), x)]


elementwise("floor", floor)
elementwise("ceil", ceil)
elementwise("rem", rem)
