"""Exact rules of what only moves elements: numpy's moves, and the gather or scatter itself on the elements' numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect.interpret.movement import MOVES
from nandetect.truth.balls import NAN
from nandetect.truth.elementwise import add, largest, mul, smallest, sub
from nandetect.truth.reductions import joined_at
from nandetect.truth.table import RULES, array, lifted, number, rule

for _name, _move in MOVES.items():
    # An operand that moves together with exact ones (what a pad fills in) is exact too: only a case's number and a window's place are not.
    RULES[_name] = lambda params, *xs, move=_move: move(params, *xs)


@rule("name", "device_put")
def _handed_on(params: dict[str, Any], *xs: np.ndarray) -> list[np.ndarray]:
    return list(xs)


@rule("stack")
def _stack(params: dict[str, Any], *xs: np.ndarray) -> list[np.ndarray]:
    return [np.stack(xs, params["axis"])]


@rule("unstack")
def _unstack(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return [array(part) for part in np.moveaxis(x, params["axis"], 0)]


@rule("tile")
def _tile(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return [np.tile(x, params["reps"])]


@rule("iota")
def _iota(params: dict[str, Any]) -> list[np.ndarray]:
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = params["shape"][params["dimension"]]
    numbers = np.broadcast_to(np.arange(max(shape)).reshape(shape), params["shape"])
    dtype = np.dtype(params["dtype"])
    return [numbers.astype(dtype) if dtype.kind in "biu" else lifted(numbers)]


def _places(x: np.ndarray) -> jnp.ndarray:
    return jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape)


@rule("gather")
def _gather(params: dict[str, Any], x: np.ndarray, indices: np.ndarray) -> list[np.ndarray]:
    places = lax.gather(
        _places(x),
        jnp.asarray(indices),
        params["dimension_numbers"],
        params["slice_sizes"],
        mode=params["mode"],
        fill_value=-1,
    )
    filling = params.get("fill_value")
    elements = np.append(x.reshape(-1), [number(NAN if filling is None else filling)])
    return [array(elements[np.asarray(places)])]


def _scattered(params: dict[str, Any], x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """The place in `x`, in row-major order, that each update goes to; -1 where it is dropped. A gather reads where a scatter writes."""
    numbers = params["dimension_numbers"]
    windows = iter(updates.shape[axis] for axis in numbers.update_window_dims)
    still = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    sizes = [1 if axis in still else next(windows) for axis in range(x.ndim)]
    places = lax.gather(
        _places(x),
        jnp.asarray(indices),
        lax.GatherDimensionNumbers(
            offset_dims=numbers.update_window_dims,
            collapsed_slice_dims=numbers.inserted_window_dims,
            start_index_map=numbers.scatter_dims_to_operand_dims,
            operand_batching_dims=numbers.operand_batching_dims,
            start_indices_batching_dims=numbers.scatter_indices_batching_dims,
        ),
        tuple(sizes),
        mode=params["mode"],
        fill_value=-1,
    )
    return np.asarray(places)


def _scatter(names: tuple[str, ...], join: Callable[[Any, Any], Any] | None) -> None:
    def apply(params: dict[str, Any], x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> list[np.ndarray]:
        return [joined_at(join, lifted(x), _scattered(params, x, indices, updates), lifted(updates))]

    RULES.update(dict.fromkeys(names, apply))


_scatter(("scatter",), None)
_scatter(("scatter-add", "scatter_add"), add)
_scatter(("scatter-sub", "scatter_sub"), sub)
_scatter(("scatter-mul", "scatter_mul"), mul)
_scatter(("scatter-min", "scatter_min"), smallest)
_scatter(("scatter-max", "scatter_max"), largest)
