"""Exact rules of the primitives that work element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from flint import arb

from nandetect.compat import JaxprEqn
from nandetect.truth.balls import INF, NAN, ZERO, Unclear, nearest
from nandetect.truth.functions import FUNCTIONS
from nandetect.truth.gammas import SEVERAL
from nandetect.truth.order import order, rank, sign
from nandetect.truth.split import Number, Split
from nandetect.truth.table import Rule, each, lifted, number, rule


def elementwise(name: str, function: Callable[..., object]) -> None:
    """Register a function of numbers as the rule of a primitive."""
    rule(name)(lambda eqn, *xs: [each(function, *map(lifted, xs))])


def decided(x: Number) -> arb:
    """A number as one ball; a split number's parts are added."""
    return x.whole() if isinstance(x, Split) else x


def add(x: Number, y: Number) -> Number:
    return x + y


def sub(x: Number, y: Number) -> Number:
    return number(0) if x is y and x.is_finite() else x - y


def mul(x: Number, y: Number) -> Number:
    product = x * y
    return product if product.is_finite() else number(np.float64(rank(x)) * rank(y))


def div(x: Number, y: Number) -> Number:
    """A quotient; a divisor of zero counts as positive."""
    quotient = x / y
    if quotient.is_finite():
        return quotient
    above, below = np.float64(rank(x)), np.float64(rank(y))
    return number(above / below)


def power(x: Number, n: int) -> Number:
    """An integer power."""
    y = x**n
    if y.is_finite():
        return y
    return number(np.float64(rank(x)) ** n)


def pow(x: Number, y: Number) -> Number:
    """A real power, NaN of a negative number unless the exponent is an integer; with 0 and infinities it is as in IEEE 754."""
    exponent = decided(y)
    if not (x.is_finite() and exponent.is_finite()):
        return number(np.power(_representative(x), _representative(y)))
    if exponent.is_exact() and exponent.is_integer() and abs(exponent) < 2**62:
        return power(x, int(nearest(exponent)))
    side = sign(x)
    if side == 0:
        return number(0) if sign(y) == 1 else number(INF)
    return number(NAN) if side == -1 else FUNCTIONS["exp"](y * FUNCTIONS["log"](x))


def _representative(x: Number) -> np.float64:
    """A float to stand for a number in `np.power`: on the same side of -1, 0 and 1, odd or even as it is, or the infinity or NaN itself."""
    side = rank(x)
    if not np.isfinite(side) or side == 0:
        return np.float64(side)
    ball = decided(x)
    if ball.is_exact() and ball.is_integer() and abs(ball) != 1:
        return np.float64(side * (3 if int(nearest(ball)) % 2 else 2))
    return np.float64(side * {-1: 0.5, 0: 1.0, 1: 2.5}[order(abs(x), number(1)) or 0])


def polynomial(x: Number, *coefficients: Number) -> Number:
    """A polynomial in x by its coefficients, lowest first."""
    return functools.reduce(lambda sum, coefficient: add(coefficient, mul(x, sum)), reversed(coefficients))


def largest(x: Number, y: Number) -> Number:
    """The larger of two numbers, NaN where either is; of two equal ones the first."""
    return _extreme(x, y, 1)


def smallest(x: Number, y: Number) -> Number:
    """The smaller of two numbers, NaN where either is; of two equal ones the first."""
    return _extreme(x, y, -1)


def _extreme(x: Number, y: Number, direction: int) -> Number:
    if x is y:
        return x
    side = order(x, y)
    return number(NAN) if side is None else y if side == -direction else x


def clamp(low: Number, x: Number, high: Number) -> Number:
    return smallest(largest(x, low), high)


def _sign(x: Number) -> Number:
    side = sign(x)
    return number(NAN if side is None else side)


def atan2(y: Number, x: Number) -> Number:
    """The angle of a point, with the axes' own angles for points that lie on them or infinitely far out."""
    if y.is_nan() or x.is_nan():
        return number(NAN)
    up, right = sign(y), sign(x)
    if not (y.is_finite() and x.is_finite()):
        y, x = (number(0 if v.is_finite() else int(rank(v) > 0) * 2 - 1) for v in (y, x))
    angle = abs(arb.atan2(decided(y), decided(x))) if sign(y) else ZERO if right != -1 else arb.pi()
    return number(-angle if up == -1 else angle)


def comparison(test: Callable[[int], bool], unordered: bool = False) -> Rule:
    """The rule of a comparison: `test` of the order of two numbers, or `unordered` where one of them is NaN."""

    def compare(x: Number, y: Number) -> bool:
        side = order(x, y)
        return unordered if side is None else test(side)

    return lambda eqn, x, y: [np.asarray(each(compare, lifted(x), lifted(y)), bool)]


def several(function: Callable[..., arb]) -> Callable[..., Number]:
    """A function of several balls as a function of numbers: NaN where it has no value."""

    def of(*xs: Number) -> Number:
        balls = [decided(x) for x in xs]
        y = function(*balls)
        if y.is_finite() or any(x.is_nan() for x in balls):
            return number(y)
        if isinstance(xs[0], arb) and not all(x.is_exact() for x in balls):
            raise Unclear
        return number(NAN)

    return of


for _name, _function in FUNCTIONS.items():
    elementwise(_name, _function)
for _name, _function_of_several in SEVERAL.items():
    elementwise(_name, several(_function_of_several))
for _name, _operation in {
    "add": add,
    "add_any": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "neg": lambda x: -x,
    "abs": abs,
    "sign": _sign,
    "square": lambda x: mul(x, x),
    "one_minus_square": lambda x: number(1) - mul(x, x),
    "polynomial": polynomial,
    "max": largest,
    "min": smallest,
    "clamp": clamp,
    "pow": pow,
    "atan2": atan2,
    # `reduce_precision` keeps a number as it is: the truth does not round.
    "reduce_precision": lambda x: x,
}.items():
    elementwise(_name, _operation)
for _name, _test, _unordered in (
    ("eq", lambda side: side == 0, False),
    ("ne", lambda side: side != 0, True),
    ("lt", lambda side: side < 0, False),
    ("le", lambda side: side <= 0, False),
    ("gt", lambda side: side > 0, False),
    ("ge", lambda side: side >= 0, False),
):
    rule(_name)(comparison(_test, _unordered))


@rule("is_finite")
def _is_finite(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(each(lambda v: v.is_finite(), x), bool)]


@rule("integer_pow")
def _integer_pow(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    return [each(lambda v: power(v, eqn.params["y"]), x)]
