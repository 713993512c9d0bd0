"""What is said where a primitive gives what is not finite: one short phrase, from its operands' values at the bad element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

# The operands' values are Python numbers, complex ones and booleans among them.
Values = Sequence[Any]
Edge = Callable[[Values], str]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether an operand's value is a real number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_infinite(value: object) -> bool:
    """Whether an operand's value is an inf of either sign."""
    return is_number(value) and math.isinf(value)


def division(values: Values) -> str:
    top, bottom = values
    if bottom == 0:
        return "zero divided by zero" if top == 0 else "division by zero"
    return "inf divided by inf" if is_infinite(top) and is_infinite(bottom) else "overflow in a division"


def product(values: Values) -> str:
    meets_inf = any(value == 0 for value in values) and any(map(is_infinite, values))
    return "zero times inf" if meets_inf else "overflow in a product"


def difference(values: Values) -> str:
    return "inf minus inf" if any(map(is_infinite, values)) else "overflow in a difference"


def addition(values: Values) -> str:
    return "inf minus inf" if any(map(is_infinite, values)) else "overflow in a sum"


def log(values: Values) -> str:
    return "log of zero" if values[0] == 0 else "log of a negative number"


def log1p(values: Values) -> str:
    return "log1p of -1" if values[0] == -1 else "log1p of a number below -1"


def power(values: Values) -> str:
    base, exponent = values
    if base == 0:
        return "zero to a negative power"
    if is_number(base) and base < 0 and is_number(exponent) and exponent != int(exponent):
        return "fractional power of a negative number"
    return "overflow in a power"


def integer_power(values: Values) -> str:
    return "negative power of zero" if values[0] == 0 else "overflow in a power"


def rsqrt(values: Values) -> str:
    return "reciprocal square root of zero" if values[0] == 0 else "reciprocal square root of a negative number"


def outside(name: str, end: float) -> Edge:
    """Of a function that is defined from -`end` to `end`."""
    return lambda values: f"{name} at {values[0]:g}" if abs(values[0]) == end else f"{name} outside [{-end:g}, {end:g}]"


def always(phrase: str) -> Edge:
    """The same phrase whatever the values are."""
    return lambda values: phrase
