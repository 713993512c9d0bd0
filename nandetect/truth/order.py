"""How two numbers stand to each other, where their balls tell."""

from __future__ import annotations

import numpy as np

from nandetect.truth.balls import ZERO, Unclear
from nandetect.truth.split import Number


def sign(x: Number) -> int | None:
    """-1, 0 or 1; None of a NaN. Raises `Unclear` where the ball holds zero and more."""
    return order(x, ZERO)


def order(x: Number, y: Number) -> int | None:
    """-1, 0 or 1 as x is below, equal to or above y; None where either is NaN. Raises `Unclear` where the balls overlap."""
    if x < y:
        return -1
    if x > y:
        return 1
    if x.is_nan() or y.is_nan():
        return None
    # One number compared with itself, moved or copied, is equal however wide its ball: such is a tie of a maximum.
    if x is y or x == y:
        return 0
    raise Unclear


def rank(x: Number) -> float:
    """The sign of a number as a float, -1, 0 or 1; an infinity or a NaN itself. Raises `Unclear` as `sign` does."""
    side = sign(x)
    if side is None:
        return np.nan
    return float(side) if x.is_finite() else side * np.inf
