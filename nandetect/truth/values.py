"""One exact result as an array: where it is defined, its values rounded to a type, and its distance from another array."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flint import arb, fmpz
from jax.typing import DTypeLike

from nandetect.truth.split import Number, Split
from nandetect.truth.table import each, lifted

# An exponent beyond the range of any type, and within that of `np.ldexp`.
FAR_EXPONENT = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """One output leaf: `balls` is an object array of `flint.arb`; an infinite ball is infinite in truth, a NaN has no value."""

    balls: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.balls.shape

    @property
    def defined(self) -> np.ndarray:
        """Where the exact value is a real number, bool[shape]: not where it is infinite, does not exist or cannot be decided."""
        return np.asarray(each(arb.is_finite, self.balls), bool)

    @property
    def infinite(self) -> np.ndarray:
        """1 or -1 where the exact value is infinite, else 0, int64[shape]."""
        return np.asarray(each(_infinity, self.balls), np.int64)

    @property
    def magnitude(self) -> np.ndarray:
        """The absolute value, float64[shape]: inf where that overflows, NaN where there is none."""
        return np.abs(self.rounded(np.float64))

    def rounded(self, dtype: DTypeLike) -> np.ndarray:
        """The exact values rounded to nearest, ties to even, in a floating type: subnormal numbers are kept, overflow is infinite."""
        form = form_of(dtype)
        return np.asarray(each(lambda ball: nearest(ball, form), self.balls), np.float64).astype(jnp.dtype(dtype))

    def distance(self, other: np.ndarray | float) -> np.ndarray:
        """|truth - other|, float64[shape]: 0 where both are the same infinity (or both are NaN), inf where else either is not finite."""
        return np.asarray(each(_distance, self.balls, lifted(other)), np.float64)


def form_of(dtype: DTypeLike) -> tuple[int, int, float]:
    """A floating type's bits of precision, the exponent of its smallest subnormal number, and its largest number."""
    info = jnp.finfo(jnp.dtype(dtype))
    return info.nmant + 1, int(info.minexp) - info.nmant, float(info.max)


def nearest(ball: arb, form: tuple[int, int, float]) -> float:
    """The midpoint of a ball in a floating type. It is computed in integers, so that it is rounded only once."""
    if not ball.is_finite():
        return float(_infinity(ball)) * np.inf if _infinity(ball) else np.nan
    mantissa, exponent = ball.mid().man_exp()
    precision, last, most = form
    sign, mantissa = (-1, -mantissa) if mantissa < 0 else (1, mantissa)
    if mantissa == 0 or mantissa.bit_length() + exponent < last - 1:
        return sign * 0.0
    if mantissa.bit_length() + exponent > FAR_EXPONENT:
        return sign * np.inf
    drop = max(mantissa.bit_length() - precision, last - int(exponent))
    if drop > 0:
        kept, rest, half = mantissa >> drop, mantissa & ((fmpz(1) << drop) - 1), fmpz(1) << (drop - 1)
        mantissa, exponent = kept + (rest > half or (rest == half and kept % 2 == 1)), exponent + drop
    # From here nothing is rounded, as the mantissa has at most 53 bits.
    if mantissa.bit_length() + exponent > 1024:
        return sign * np.inf
    value = float(np.ldexp(float(int(mantissa)), int(exponent)))
    return sign * (value if value <= most else np.inf)


def _infinity(ball: arb) -> int:
    return 0 if ball.is_finite() or ball.is_nan() else 1 if ball > 0 else -1


def _distance(ball: arb, number: Number) -> float:
    other = number.high if isinstance(number, Split) else number
    if ball.is_nan() or other.is_nan():
        return 0.0 if ball.is_nan() and other.is_nan() else np.inf
    if not (ball.is_finite() and other.is_finite()):
        return 0.0 if _infinity(ball) == _infinity(other) else np.inf
    return abs(nearest(ball - other, form_of(np.float64)))
