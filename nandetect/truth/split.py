"""Numbers at the last precision: a ball and, apart from it, a remainder too small for the ball to see.

However many bits there are, 1 + exp(-1e6) needs more: in one ball it is 1, and after 1 is subtracted the log of the rest is -inf instead of
-1e6. So the part that a sum would round away is kept as a remainder. A ball that still holds zero at the last precision is taken to be
zero: nothing else is known of it.
"""

from __future__ import annotations

from typing import TypeAlias

from flint import arb

from nandetect.truth.balls import NAN, ZERO, holds_zero, tiny


class Split:
    """The number `high + low`; `low` is zero, or below half of the bits of `high`."""

    __slots__ = ("high", "low")

    def __init__(self, high: arb | int, low: arb = ZERO):
        self.high = high if isinstance(high, arb) else arb(high)
        self.low = low

    def whole(self) -> arb:
        """Both parts as one ball."""
        return self.high if self.low.is_zero() else self.high + self.low

    def is_finite(self) -> bool:
        return self.high.is_finite()

    def is_nan(self) -> bool:
        return self.high.is_nan()

    def __neg__(self) -> Split:
        return Split(-self.high, -self.low)

    def __abs__(self) -> Split:
        return -self if self.high < 0 else self

    def __add__(self, other: Number) -> Split:
        x, y = self, split(other)
        if not (x.is_finite() and y.is_finite()):
            return Split(x.high + y.high)
        if not x.high.is_zero() and not y.high.is_zero():
            if tiny(x.high, y.high):
                return joined(y.high, y.low + x.high)
            if tiny(y.high, x.high):
                return joined(x.high, x.low + y.high)
        return joined(x.high + y.high, x.low + y.low)

    def __sub__(self, other: Number) -> Split:
        return self + -split(other)

    def __rsub__(self, other: Number) -> Split:
        return split(other) - self

    def __mul__(self, other: Number) -> Split:
        x, y = self, split(other)
        return joined(x.high * y.high, x.high * y.low + x.low * y.high + x.low * y.low)

    def __truediv__(self, other: Number | int) -> Split:
        x, y = self, split(other)
        if y.high.is_zero():
            return Split(NAN)
        if x.low.is_zero() and y.low.is_zero():
            return joined(x.high / y.high)
        return joined(x.high / y.high, (x.low * y.high - x.high * y.low) / (y.high * y.whole()))

    def __rtruediv__(self, other: Number | int) -> Split:
        return split(other) / self

    def __pow__(self, exponent: int) -> Split:
        power = self.high**exponent
        if self.low.is_zero() or not power.is_finite():
            return joined(power)
        return joined(power, power * (exponent * (self.low / self.high).log1p()).expm1())

    def __lt__(self, other: Number) -> bool:
        return self.is_below(split(other))

    def __gt__(self, other: Number) -> bool:
        return split(other).is_below(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Split | arb | int):
            return NotImplemented
        return not (self.is_below(split(other)) or split(other).is_below(self) or self.is_nan() or split(other).is_nan())

    __hash__ = None  # pyright: ignore[reportAssignmentType]
    __radd__ = __add__
    __rmul__ = __mul__

    def is_below(self, other: Split) -> bool:
        """Whether this number is certainly less, by more than the last precision takes to be zero."""
        if not (self.is_finite() and other.is_finite()):
            return bool(self.high < other.high)
        return bool((self - other).high < 0)


# An exact number: a ball, or at the last precision a split one.
Number: TypeAlias = arb | Split


def split(x: Number | int) -> Split:
    """A number as a split number."""
    return x if isinstance(x, Split) else Split(x)


def joined(high: arb, low: arb = ZERO) -> Split:
    """`high + low` as a split number. Parts that may be zero are taken to be zero; a remainder large enough for the ball is added to it."""
    if not high.is_finite():
        return Split(high)
    if holds_zero(high):
        high = ZERO
    if holds_zero(low):
        low = ZERO
    if high.is_zero():
        return Split(low)
    if low.is_zero() or tiny(low, high):
        return Split(high, low)
    high = high + low
    return Split(ZERO if holds_zero(high) else high)
