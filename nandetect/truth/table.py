"""The table of exact rules, and arrays of exact numbers.

A rule takes an equation and its operands, and gives its results. Floating operands and results are object arrays of numbers
(`flint.arb`, or `Split` at the last precision), all others are plain numpy arrays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flint import arb, ctx
from numpy.typing import ArrayLike

from nandetect import nonfinite
from nandetect.annotations import Array
from nandetect.registry import Registry
from nandetect.truth.balls import LAST
from nandetect.truth.split import Number, Split

Rule = Callable[..., list[np.ndarray]]
RULES: Registry[str, Rule] = Registry()
rule = RULES.rule


def number(x: Number | float | np.generic) -> Number:
    """An exact number from a ball, a Python or numpy number, or an exact number; split at the last precision."""
    if isinstance(x, Split):
        return x
    if not isinstance(x, arb):
        x = arb(int(x)) if isinstance(x, (int, np.integer, np.bool_)) else arb(float(x))
    return Split(x) if ctx.prec >= LAST else x


def array(x: object) -> np.ndarray:
    """The array itself, or an object array of a bare element, which numpy returns in the place of an array without axes."""
    if isinstance(x, np.ndarray):
        return x
    out = np.empty((), object)
    out[()] = x
    return out


def each(function: Callable[..., object], *xs: Array) -> np.ndarray:
    """The object array of a function of numbers, applied to arrays elementwise."""
    return array(np.frompyfunc(function, len(xs), 1)(*xs))


def lifted(x: ArrayLike) -> np.ndarray:
    """A real array as exact numbers."""
    x = x if isinstance(x, np.ndarray) else np.asarray(x)
    if x.dtype != object and x.dtype.kind not in "biu":
        x = nonfinite.host(x).astype(np.float64)
    return each(number, x)


def is_exact(x: object) -> bool:
    """Whether an operand holds exact numbers."""
    return isinstance(x, np.ndarray) and x.dtype == object


def full(shape: tuple[int, ...], value: Number | float) -> np.ndarray:
    """An array whose elements are all one number."""
    out = np.empty(shape, object)
    out.fill(number(value))
    return out
