"""Equations that only move elements, run with numpy: exact, nothing to compile, and able to carry element numbers instead of values.

Arithmetic does not stand here: what numpy gives bit for bit as XLA does is in `ieee`, and all else runs in XLA.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nandetect.primitives.record import Params
from nandetect.registry import Registry

# The results of an equation from its parameters, and its operands as arrays in memory.
Move = Callable[..., list[np.ndarray]]
MOVES: Registry[str, Move] = Registry()


@MOVES.rule("copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint", "pvary", "mesh_cast", "reshard", "pcast")
@MOVES.rule("name")
def _same(params: Params, *xs: np.ndarray) -> list[np.ndarray]:
    return list(xs)


@MOVES.rule("reshape")
def _reshape(params: Params, x: np.ndarray, *_: np.ndarray) -> list[np.ndarray]:
    order = params.get("dimensions")
    return [(x if order is None else x.transpose(order)).reshape(params["new_sizes"])]


@MOVES.rule("squeeze")
def _squeeze(params: Params, x: np.ndarray) -> list[np.ndarray]:
    return [x.reshape([size for axis, size in enumerate(x.shape) if axis not in params["dimensions"]])]


@MOVES.rule("expand_dims")
def _expand_dims(params: Params, x: np.ndarray) -> list[np.ndarray]:
    return [np.expand_dims(x, params["dimensions"])]


@MOVES.rule("transpose")
def _transpose(params: Params, x: np.ndarray) -> list[np.ndarray]:
    return [x.transpose(params["permutation"])]


@MOVES.rule("rev")
def _rev(params: Params, x: np.ndarray) -> list[np.ndarray]:
    return [np.flip(x, params["dimensions"])]


@MOVES.rule("broadcast_in_dim")
def _broadcast_in_dim(params: Params, x: np.ndarray, *_: np.ndarray) -> list[np.ndarray]:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return [np.broadcast_to(x.reshape(shape), params["shape"])]


@MOVES.rule("slice")
def _slice(params: Params, x: np.ndarray) -> list[np.ndarray]:
    strides = params["strides"] or [1] * x.ndim
    return [x[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]]


@MOVES.rule("split")
def _split(params: Params, x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


@MOVES.rule("concatenate")
def _concatenate(params: Params, *xs: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate(xs, axis=params["dimension"])]


@MOVES.rule("pad")
def _pad(params: Params, x: np.ndarray, filling: np.ndarray) -> list[np.ndarray]:
    config = params["padding_config"]
    inner = [size + max(size - 1, 0) * step for size, (_, _, step) in zip(x.shape, config, strict=True)]
    spread = np.full(inner, filling, x.dtype)
    spread[tuple(slice(None, None, step + 1) for _, _, step in config)] = x
    padded = np.pad(spread, [(max(low, 0), max(high, 0)) for low, high, _ in config], constant_values=filling)
    cut = tuple(slice(max(-low, 0), size - max(-high, 0)) for (low, high, _), size in zip(config, padded.shape, strict=True))
    return [padded[cut]]


@MOVES.rule("select_n")
def _select_n(params: Params, which: np.ndarray, *cases: np.ndarray) -> list[np.ndarray]:
    if which.ndim == 0:
        return [cases[int(which)]]
    if len(cases) == 2:
        return [np.where(which.astype(bool), cases[1], cases[0])]
    return [np.choose(which, cases)]


def _starts(shape: tuple[int, ...], window: tuple[int, ...], starts: tuple[np.ndarray, ...]) -> tuple[slice, ...]:
    # A window that would stick out is moved back inside, as XLA does.
    clamped = [int(np.clip(int(start), 0, size - width)) for start, size, width in zip(starts, shape, window, strict=True)]
    return tuple(slice(start, start + width) for start, width in zip(clamped, window, strict=True))


@MOVES.rule("dynamic_slice")
def _dynamic_slice(params: Params, x: np.ndarray, *starts: np.ndarray) -> list[np.ndarray]:
    return [x[_starts(x.shape, params["slice_sizes"], starts)]]


@MOVES.rule("dynamic_update_slice")
def _dynamic_update_slice(params: Params, x: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> list[np.ndarray]:
    out = np.array(x)
    out[_starts(x.shape, update.shape, starts)] = update
    return [out]


@MOVES.rule("stack")
def _stack(params: Params, *xs: np.ndarray) -> list[np.ndarray]:
    return [np.stack(xs, axis=params["axis"])]


@MOVES.rule("unstack")
def _unstack(params: Params, x: np.ndarray) -> list[np.ndarray]:
    return list(np.moveaxis(x, params["axis"], 0))


@MOVES.rule("tile")
def _tile(params: Params, x: np.ndarray) -> list[np.ndarray]:
    return [np.tile(x, params["reps"])]
