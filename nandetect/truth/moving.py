"""Exact rules of the primitives that only move elements: numpy's moves, and JAX's own gather on the elements' positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import primitives
from nandetect.compat import JaxprEqn
from nandetect.interpret.movement import MOVES
from nandetect.truth.balls import NAN
from nandetect.truth.elementwise import add, largest, mul, smallest, sub
from nandetect.truth.reductions import Join, joined_at
from nandetect.truth.table import RULES, array, full, lifted, rule


@rule("name", "device_put")
def _unchanged(eqn: JaxprEqn, *xs: np.ndarray) -> list[np.ndarray]:
    return list(xs)


@rule("stack")
def _stack(eqn: JaxprEqn, *xs: np.ndarray) -> list[np.ndarray]:
    return [np.stack(xs, eqn.params["axis"])]


@rule("unstack")
def _unstack(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    return [array(part) for part in np.moveaxis(x, eqn.params["axis"], 0)]


@rule("tile")
def _tile(eqn: JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    return [np.tile(x, eqn.params["reps"])]


@rule("iota")
def _iota(eqn: JaxprEqn) -> list[np.ndarray]:
    shape = [1] * len(eqn.params["shape"])
    shape[eqn.params["dimension"]] = eqn.params["shape"][eqn.params["dimension"]]
    numbers = np.broadcast_to(np.arange(max(shape)).reshape(shape), eqn.params["shape"])
    dtype = np.dtype(eqn.params["dtype"])
    return [numbers.astype(dtype) if dtype.kind in "biu" else lifted(numbers)]


def _positions(x: np.ndarray) -> jax.Array:
    """The position of every element in row-major order, in the array's shape."""
    return jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape)


@rule("gather")
def _gather(eqn: JaxprEqn, x: np.ndarray, indices: np.ndarray) -> list[np.ndarray]:
    positions = lax.gather(
        _positions(x),
        jnp.asarray(indices),
        eqn.params["dimension_numbers"],
        eqn.params["slice_sizes"],
        mode=eqn.params["mode"],
        fill_value=-1,
    )
    filling = eqn.params.get("fill_value")
    elements = np.append(x.reshape(-1), full((1,), NAN if filling is None else filling))
    return [array(elements[np.asarray(positions)])]


def _targets(eqn: JaxprEqn, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """The position in `x` that each update goes to; -1 where it is dropped. A gather of the positions reads where the scatter writes."""
    numbers = eqn.params["dimension_numbers"]
    windows = iter(updates.shape[axis] for axis in numbers.update_window_dims)
    single_axes = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    sizes = [1 if axis in single_axes else next(windows) for axis in range(x.ndim)]
    positions = lax.gather(
        _positions(x),
        jnp.asarray(indices),
        lax.GatherDimensionNumbers(
            offset_dims=numbers.update_window_dims,
            collapsed_slice_dims=numbers.inserted_window_dims,
            start_index_map=numbers.scatter_dims_to_operand_dims,
            operand_batching_dims=numbers.operand_batching_dims,
            start_indices_batching_dims=numbers.scatter_indices_batching_dims,
        ),
        tuple(sizes),
        mode=eqn.params["mode"],
        fill_value=-1,
    )
    return np.asarray(positions)


def _scatter(name: str, join: Join | None) -> None:
    """Register the rule of a scatter that joins an update to the element at its position, or replaces it where `join` is None."""

    def apply(eqn: JaxprEqn, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> list[np.ndarray]:
        return [joined_at(join, lifted(x), _targets(eqn, x, indices, updates), lifted(updates))]

    rule(*primitives.named(name).names)(apply)


_scatter("scatter", None)
_scatter("scatter-add", add)
_scatter("scatter-sub", sub)
_scatter("scatter-mul", mul)
_scatter("scatter-min", smallest)
_scatter("scatter-max", largest)

for _name, _move in MOVES.items():
    # Operands that move are exact numbers, as is what a pad fills in; the number of a case and the start of a window are plain.
    if _name not in RULES:
        rule(_name)(lambda eqn, *xs, move=_move: move(eqn.params, *xs))
