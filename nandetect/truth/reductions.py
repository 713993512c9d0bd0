"""Exact rules of the primitives that run along axes: reductions, running ones, products of matrices, sorting."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import numpy as np

from nandetect.compat import JaxprEqn
from nandetect.truth.balls import INF, NEGATIVE_INF
from nandetect.truth.elementwise import add, largest, mul, smallest
from nandetect.truth.functions import FUNCTIONS
from nandetect.truth.order import order
from nandetect.truth.split import Number
from nandetect.truth.table import RULES, array, each, full, is_exact, rule

# A function that makes one number of two.
Join = Callable[[Number, Number], Number]

# The functions that join two numbers in a reduction, and the result of each reduction for no numbers at all.
JOINS: dict[str, tuple[Join, Number | int]] = {
    "sum": (add, 0),
    "prod": (mul, 1),
    "max": (largest, NEGATIVE_INF),
    "min": (smallest, INF),
}


def along(join: Join, x: np.ndarray, axes: Sequence[int], empty: Number | int) -> np.ndarray:
    """The elements along the axes joined into one, from the first to the last; `empty` where there are none."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose([*kept, *axes]).reshape([*(x.shape[axis] for axis in kept), -1] if x.size else [*(x.shape[a] for a in kept), 0])
    if not rows.shape[-1]:
        return full(rows.shape[:-1], empty)
    return array(np.frompyfunc(join, 2, 1).reduce(rows, axis=-1))


def _register(name: str, join: Join, empty: Number | int) -> None:
    """Register the rules of the reduction by a function, and of the running one."""
    ufunc = np.frompyfunc(join, 2, 1)

    def running(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
        axis = eqn.params["axis"]
        turned = np.flip(x, axis) if eqn.params["reverse"] else x
        out = ufunc.accumulate(turned, axis=axis, dtype=object) if x.size else x
        return [np.flip(out, axis) if eqn.params["reverse"] else out]

    rule(f"reduce_{name}")(lambda eqn, x: [along(join, x, eqn.params["axes"], empty)])
    rule(f"cum{name}")(running)


for _name, (_join, _empty) in JOINS.items():
    _register(_name, _join, _empty)


@rule("cumlogsumexp")
def _cumlogsumexp(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    (sums,) = RULES["cumsum"](eqn, each(FUNCTIONS["exp"], x))
    return [each(FUNCTIONS["log"], sums)]


def _extreme(eqn: JaxprEqn, x: np.ndarray, direction: int) -> list[np.ndarray]:
    """Where the first largest (`direction` 1) or smallest (-1) element of each row is; of a row with a NaN, where the first NaN is."""
    (axis,) = eqn.params["axes"]

    def first(row: np.ndarray) -> int:
        best = 0
        for index, element in enumerate(row):
            if row[best].is_nan():
                break
            if element.is_nan() or (element is not row[best] and order(element, row[best]) == direction):
                best = index
        return best

    rows = np.moveaxis(x, axis, -1)
    flat = [first(row) for row in rows.reshape(-1, rows.shape[-1])]
    return [np.array(flat, eqn.params["index_dtype"]).reshape(rows.shape[:-1])]


rule("argmax")(lambda eqn, x: _extreme(eqn, x, 1))
rule("argmin")(lambda eqn, x: _extreme(eqn, x, -1))


@rule("dot_general")
def _dot_general(eqn: JaxprEqn, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    (x_summed, y_summed), (x_batch, y_batch) = eqn.params["dimension_numbers"]
    x_rows, x_free = _matrices(x, x_batch, x_summed)
    y_rows, y_free = _matrices(y, y_batch, y_summed)
    products = each(mul, x_rows[:, :, None, :], y_rows[:, None, :, :])
    out = along(add, products, (3,), 0)
    return [out.reshape([*(x.shape[axis] for axis in x_batch), *x_free, *y_free])]


def _matrices(x: np.ndarray, batch: Sequence[int], summed: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """An array in the shape [batch, free, summed], and the sizes of its free axes."""
    free = [axis for axis in range(x.ndim) if axis not in (*batch, *summed)]
    sizes = [[x.shape[axis] for axis in axes] for axes in (batch, free, summed)]
    return x.transpose([*batch, *free, *summed]).reshape([int(np.prod(part)) for part in sizes]), sizes[1]


def ranking(keys: Sequence[np.ndarray]) -> np.ndarray:
    """The stable sorting order of numbers, by the first key, then by the next; NaN comes last, as XLA sorts."""

    def compare(i: int, j: int) -> int:
        for key in keys:
            side = _before(key[i], key[j]) if is_exact(key) else int(key[i] > key[j]) - int(key[i] < key[j])
            if side:
                return side
        return 0

    return np.array(sorted(range(len(keys[0])), key=functools.cmp_to_key(compare)), int)


def _before(x: Number, y: Number) -> int:
    """-1, 0 or 1 where x stands before y in a sorted row, is equal to it, or stands after it."""
    if x is y:
        return 0
    side = order(x, y)
    return int(x.is_nan()) - int(y.is_nan()) if side is None else side


@rule("sort")
def _sort(eqn: JaxprEqn, *xs: np.ndarray) -> list[np.ndarray]:
    axis = eqn.params["dimension"]
    rows = [np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) for x in xs]
    out = [np.empty_like(row) for row in rows]
    for index in range(len(rows[0])):
        permutation = ranking([row[index] for row in rows[: eqn.params["num_keys"]]])
        for new, row in zip(out, rows, strict=True):
            new[index] = row[index][permutation]
    moved = np.moveaxis(xs[0], axis, -1).shape
    return [np.moveaxis(new.reshape(moved), -1, axis) for new in out]


@rule("top_k")
def _top_k(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    axis = eqn.params.get("axis", -1) % x.ndim
    rows = np.moveaxis(x, axis, -1)
    flat = rows.reshape(-1, rows.shape[-1])
    positions = [ranking([each(operator.neg, row)])[: eqn.params["k"]] for row in flat]
    indices = np.array(positions, np.int32).reshape(-1, eqn.params["k"])
    out = [np.take_along_axis(flat, indices, -1), indices]
    return [np.moveaxis(part.reshape([*rows.shape[:-1], eqn.params["k"]]), -1, axis) for part in out]


def joined_at(join: Join | None, x: np.ndarray, positions: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """`x` with each update joined to the element at its row-major position, or replacing it; a position below 0 drops the update."""
    out = np.array(x).reshape(-1)
    for position, update in zip(map(int, positions.reshape(-1)), updates.reshape(-1), strict=True):
        if position >= 0:
            out[position] = update if join is None else join(out[position], update)
    return out.reshape(x.shape)
