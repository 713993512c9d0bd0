"""What a primitive makes of integers that have no bounds, from the elements of each operand: what the machine's may not hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Exact = Callable[..., int | None]


def sum_of_two(params: Mapping[str, Any], xs: list[int], ys: list[int]) -> int:
    return xs[0] + ys[0]


def difference(params: Mapping[str, Any], xs: list[int], ys: list[int]) -> int:
    return xs[0] - ys[0]


def product_of_two(params: Mapping[str, Any], xs: list[int], ys: list[int]) -> int:
    return xs[0] * ys[0]


def negative(params: Mapping[str, Any], xs: list[int]) -> int:
    return -xs[0]


def magnitude(params: Mapping[str, Any], xs: list[int]) -> int:
    return abs(xs[0])


def power(params: Mapping[str, Any], xs: list[int]) -> int | None:
    return xs[0] ** params["y"] if params["y"] >= 0 else None


def square(params: Mapping[str, Any], xs: list[int]) -> int:
    return xs[0] ** 2


def same(params: Mapping[str, Any], xs: list[int]) -> int:
    return xs[0]


def total(params: Mapping[str, Any], xs: list[int]) -> int:
    return sum(xs)


def product(params: Mapping[str, Any], xs: list[int]) -> int:
    return math.prod(xs)
