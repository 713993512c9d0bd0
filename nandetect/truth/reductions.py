"""Exact rules of what runs along axes: sums, extremes, running ones, products of matrices, sorting."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nandetect.truth.balls import INF, NEGATIVE_INF, order
from nandetect.truth.elementwise import add, largest, mul, smallest
from nandetect.truth.functions import FUNCTIONS
from nandetect.truth.table import RULES, array, each, full, rule

# What a reduction of nothing gives stands beside the function that joins two.
JOINS: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "sum": (add, 0),
    "prod": (mul, 1),
    "max": (largest, NEGATIVE_INF),
    "min": (smallest, INF),
}


def along(join: Callable[[Any, Any], Any], x: np.ndarray, axes: Sequence[int], nothing: Any) -> np.ndarray:
    """All elements along the axes joined into one, from the first to the last."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose([*kept, *axes]).reshape([*(x.shape[axis] for axis in kept), -1] if x.size else [*(x.shape[a] for a in kept), 0])
    if not rows.shape[-1]:
        return full(rows.shape[:-1], nothing)
    return array(np.frompyfunc(join, 2, 1).reduce(rows, axis=-1))


def _enter(name: str, join: Callable[[Any, Any], Any], nothing: Any) -> None:
    ufunc = np.frompyfunc(join, 2, 1)

    def running(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
        axis = params["axis"]
        turned = np.flip(x, axis) if params["reverse"] else x
        out = ufunc.accumulate(turned, axis=axis, dtype=object) if x.size else x
        return [np.flip(out, axis) if params["reverse"] else out]

    RULES[f"reduce_{name}"] = lambda params, x: [along(join, x, params["axes"], nothing)]
    RULES[f"cum{name}"] = running


for _name, (_join, _nothing) in JOINS.items():
    _enter(_name, _join, _nothing)


@rule("cumlogsumexp")
def _cumlogsumexp(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    (sums,) = RULES["cumsum"](params, each(FUNCTIONS["exp"], x))
    return [each(FUNCTIONS["log"], sums)]


def _extreme(params: dict[str, Any], x: np.ndarray, wanted: int) -> list[np.ndarray]:
    (axis,) = params["axes"]

    def first(row: np.ndarray) -> int:
        best = 0
        for at, element in enumerate(row):
            if row[best].is_nan():
                break
            if element.is_nan() or (element is not row[best] and order(element, row[best]) == wanted):
                best = at
        return best

    rows = np.moveaxis(x, axis, -1)
    flat = [first(row) for row in rows.reshape(-1, rows.shape[-1])]
    return [np.array(flat, params["index_dtype"]).reshape(rows.shape[:-1])]


RULES["argmax"] = lambda params, x: _extreme(params, x, 1)
RULES["argmin"] = lambda params, x: _extreme(params, x, -1)


@rule("dot_general")
def _dot_general(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    (x_summed, y_summed), (x_batch, y_batch) = params["dimension_numbers"]
    x_rows, x_free = _matrices(x, x_batch, x_summed)
    y_rows, y_free = _matrices(y, y_batch, y_summed)
    products = each(mul, x_rows[:, :, None, :], y_rows[:, None, :, :])
    out = along(add, products, (3,), 0)
    return [out.reshape([*(x.shape[axis] for axis in x_batch), *x_free, *y_free])]


def _matrices(x: np.ndarray, batch: Sequence[int], summed: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """An array as [batch, free, summed], and the sizes of its free axes."""
    free = [axis for axis in range(x.ndim) if axis not in (*batch, *summed)]
    sizes = [[x.shape[axis] for axis in axes] for axes in (batch, free, summed)]
    return x.transpose([*batch, *free, *summed]).reshape([int(np.prod(part)) for part in sizes]), sizes[1]


def ranking(keys: Sequence[np.ndarray]) -> np.ndarray:
    """The stable order of rows of numbers, by the first key, then by the next: NaN comes last, as XLA sorts."""

    def compare(i: int, j: int) -> int:
        for key in keys:
            which = _before(key[i], key[j])
            if which:
                return which
        return 0

    return np.array(sorted(range(len(keys[0])), key=functools.cmp_to_key(compare)), int)


def _before(x: Any, y: Any) -> int:
    if x is y:
        return 0
    if isinstance(x, (np.generic, int)):
        return int(x > y) - int(x < y)
    which = order(x, y)
    return int(x.is_nan()) - int(y.is_nan()) if which is None else which


@rule("sort")
def _sort(params: dict[str, Any], *xs: np.ndarray) -> list[np.ndarray]:
    axis = params["dimension"]
    rows = [np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) for x in xs]
    out = [np.empty_like(row) for row in rows]
    for at in range(len(rows[0])):
        permutation = ranking([row[at] for row in rows[: params["num_keys"]]])
        for new, row in zip(out, rows, strict=True):
            new[at] = row[at][permutation]
    moved = np.moveaxis(xs[0], axis, -1).shape
    return [np.moveaxis(new.reshape(moved), -1, axis) for new in out]


@rule("top_k")
def _top_k(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    axis = params.get("axis", -1) % x.ndim
    rows = np.moveaxis(x, axis, -1)
    flat = rows.reshape(-1, rows.shape[-1])
    places = [ranking([each(lambda v: -v, row)])[: params["k"]] for row in flat]
    at = np.array(places, np.int32).reshape(-1, params["k"])
    out = [np.take_along_axis(flat, at, -1), at]
    return [np.moveaxis(part.reshape([*rows.shape[:-1], params["k"]]), -1, axis) for part in out]


def joined_at(join: Callable[[Any, Any], Any] | None, x: np.ndarray, places: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """`x` with each update joined to the element (or put in place of it) at its place in row-major order; a place below 0 drops it."""
    out = np.array(x).reshape(-1)
    for place, update in zip(places.reshape(-1), updates.reshape(-1), strict=True):
        if place >= 0:
            out[place] = update if join is None else join(out[place], update)
    return out.reshape(x.shape)
