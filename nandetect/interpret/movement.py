"""Equations that only move elements, run with numpy: exact, nothing to compile, and able to carry element numbers instead of values.

Arithmetic always runs in XLA, whose rounding, flushing of subnormals and saturation are what the user's program sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Move = Callable[..., list[np.ndarray]]
MOVES: dict[str, Move] = {}


def move(*names: str) -> Callable[[Move], Move]:
    """Enter a function in the table under the primitives it runs."""

    def enter(function: Move) -> Move:
        MOVES.update(dict.fromkeys(names, function))
        return function

    return enter


@move("copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint", "pvary", "mesh_cast", "reshard", "pcast")
def _same(params: dict[str, Any], *xs: np.ndarray) -> list[np.ndarray]:
    return list(xs)


@move("reshape")
def _reshape(params: dict[str, Any], x: np.ndarray, *_: Any) -> list[np.ndarray]:
    order = params.get("dimensions")
    return [(x if order is None else x.transpose(order)).reshape(params["new_sizes"])]


@move("squeeze")
def _squeeze(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return [x.reshape([size for axis, size in enumerate(x.shape) if axis not in params["dimensions"]])]


@move("expand_dims")
def _expand_dims(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return [np.expand_dims(x, params["dimensions"])]


@move("transpose")
def _transpose(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return [x.transpose(params["permutation"])]


@move("rev")
def _rev(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return [np.flip(x, params["dimensions"])]


@move("broadcast_in_dim")
def _broadcast_in_dim(params: dict[str, Any], x: np.ndarray, *_: Any) -> list[np.ndarray]:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return [np.broadcast_to(x.reshape(shape), params["shape"])]


@move("slice")
def _slice(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    strides = params["strides"] or [1] * x.ndim
    return [x[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]]


@move("split")
def _split(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


@move("concatenate")
def _concatenate(params: dict[str, Any], *xs: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate(xs, axis=params["dimension"])]


@move("pad")
def _pad(params: dict[str, Any], x: np.ndarray, filling: np.ndarray) -> list[np.ndarray]:
    config = params["padding_config"]
    inner = [size + max(size - 1, 0) * step for size, (_, _, step) in zip(x.shape, config, strict=True)]
    spread = np.full(inner, filling, x.dtype)
    spread[tuple(slice(None, None, step + 1) for _, _, step in config)] = x
    padded = np.pad(spread, [(max(low, 0), max(high, 0)) for low, high, _ in config], constant_values=filling)
    cut = tuple(slice(max(-low, 0), size - max(-high, 0)) for (low, high, _), size in zip(config, padded.shape, strict=True))
    return [padded[cut]]


@move("select_n")
def _select_n(params: dict[str, Any], which: np.ndarray, *cases: np.ndarray) -> list[np.ndarray]:
    if which.ndim == 0:
        return [cases[int(which)]]
    if len(cases) == 2:
        return [np.where(which.astype(bool), cases[1], cases[0])]
    return [np.choose(which, cases)]


def _starts(shape: tuple[int, ...], window: tuple[int, ...], starts: tuple[np.ndarray, ...]) -> tuple[slice, ...]:
    # XLA clamps a window that would stick out.
    clamped = [int(np.clip(int(at), 0, size - width)) for at, size, width in zip(starts, shape, window, strict=True)]
    return tuple(slice(at, at + width) for at, width in zip(clamped, window, strict=True))


@move("dynamic_slice")
def _dynamic_slice(params: dict[str, Any], x: np.ndarray, *starts: np.ndarray) -> list[np.ndarray]:
    return [x[_starts(x.shape, params["slice_sizes"], starts)]]


@move("dynamic_update_slice")
def _dynamic_update_slice(params: dict[str, Any], x: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> list[np.ndarray]:
    out = np.array(x)
    out[_starts(x.shape, update.shape, starts)] = update
    return [out]


# How many leading operands hold the elements that move; the rest say where to.
MOVED = {"dynamic_slice": (0,), "dynamic_update_slice": (0, 1), "reshape": (0,), "broadcast_in_dim": (0,)}


def moved_operands(name: str, count: int) -> tuple[int, ...]:
    """Which operands of a move hold the elements that move."""
    if name == "select_n":
        return tuple(range(1, count))
    return MOVED.get(name, tuple(range(count)))
