"""Exact rules of what makes whole numbers: rounding, remainders, conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nandetect.truth.balls import NAN, nearest, sign
from nandetect.truth.elementwise import decided, div, elementwise
from nandetect.truth.table import each, lifted, number, rule


def _is_whole(x: Any) -> bool:
    """Whether rounding to an integer would change nothing that anyone asks for: the largest that are told are below 2^4096."""
    return not x.is_finite() or bool(abs(x) > number(2**4096))


def rounding(how: Callable[[Any, int], Any]) -> Callable[[Any], Any]:
    """A rounding to integers; `how` says which, of the integer nearest to a number and of the side of it on which the number is."""

    def of(x: Any) -> Any:
        if _is_whole(x):
            return x
        middle = nearest(decided(x))
        side = sign(x - number(int(middle)))
        assert side is not None
        return number(int(how(middle, side)))

    return of


def _halfway(x: Any, even: bool) -> Any:
    """The nearest integer; a half goes to the even one, or away from zero."""
    if _is_whole(x):
        return x
    low = rounding(lambda middle, side: middle - (side < 0))(x)
    side = sign(x - low - number(0.5))
    if side == 0:
        side = int(nearest(decided(low))) % 2 if even else int(sign(x) == 1)
    return low + number(1 if side == 1 else 0)


def rem(x: Any, y: Any) -> Any:
    """What division towards zero leaves, with the sign of x."""
    if not x.is_finite() or y.is_nan() or sign(y) == 0:
        return number(NAN)
    if not y.is_finite():
        return x
    quotient = div(x, y)
    return x - y * (floor if sign(quotient) == 1 else ceil)(quotient)


floor = rounding(lambda middle, side: middle - (side < 0))
ceil = rounding(lambda middle, side: middle + (side > 0))


@rule("convert_element_type")
def _convert(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    """From float to float nothing changes; from integers to floats nothing is rounded; to integers it is cut off, to booleans compared."""
    dtype = np.dtype(params["new_dtype"])
    if dtype.kind not in "biu":
        return [lifted(x)]
    if x.dtype != object:
        return [x.astype(dtype)]
    if dtype.kind == "b":
        return [np.asarray(each(lambda v: sign(v) != 0, x), bool)]
    info = np.iinfo(dtype)
    return [np.asarray(each(lambda v: _cut(v, int(info.min), int(info.max)), x), dtype)]


def _cut(x: Any, least: int, most: int) -> int:
    """A number without its fraction, kept within an integer type as XLA keeps it; 0 of a NaN."""
    if x.is_nan():
        return 0
    if x > number(most):
        return most
    if x < number(least):
        return least
    return int(nearest(decided((floor if sign(x) == 1 else ceil)(x))))


@rule("round")
def _round(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    even = "EVEN" in getattr(params["rounding_method"], "name", "")
    return [each(lambda v: _halfway(v, even), x)]


elementwise("floor", floor)
elementwise("ceil", ceil)
elementwise("rem", rem)
