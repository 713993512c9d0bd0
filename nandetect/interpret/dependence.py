"""Which elements of its operands an element of an equation's output depends on, as masks going either way.

`push(marked operand)` marks the outputs that depend on a marked element; `pull(marked output)` marks the elements that it depends on.
An equation's family answers for many primitives at once; what no family knows depends on everything, which is never wrong, only wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from nandetect import nonfinite
from nandetect.interpret.families import ADDITIVE, ALONG, BILINEAR, ELEMENTWISE, KEEPS_AXES, RUNNING, SAME_PLACE, WINDOWS
from nandetect.interpret.movement import MOVES, moved_operands
from nandetect.nonfinite import Mask


@dataclass(frozen=True, slots=True)
class Flow:
    """How one operand (`slot`) of an equation reaches one of its outputs."""

    slot: int
    push: Callable[[Mask], Mask]
    pull: Callable[[Mask], Mask]


def flows(eqn: Any, ins: Sequence[Any], output: int) -> list[Flow]:
    """The flow of every inexact operand of an equation into its `output`-th result."""
    name = eqn.primitive.name
    shape = tuple(eqn.outvars[output].aval.shape)
    slots = [slot for slot, value in enumerate(ins) if nonfinite.is_inexact(value)]
    if name in MOVES:
        return _moved(eqn, ins, output, MOVES[name], slots)
    if name in ("gather", "scatter"):
        return _numbered(eqn, ins, slots)
    if name == "dot_general":
        return _contracted(eqn, ins, shape, slots)
    if name in ALONG:
        return [_along(eqn, tuple(ins[slot].shape), shape, slot) for slot in slots]
    if name in ("sort", "top_k"):
        return _permuted(eqn, ins, output, slots)
    if name in RUNNING:
        return [_running(eqn, slot) for slot in slots]
    if name in WINDOWS:
        return [_windowed(eqn, ins[slot], slot) for slot in slots]
    if name in ADDITIVE:
        return [_linear(eqn, ins, slot, 0.0) for slot in slots]
    if name in BILINEAR:
        # The kernel meets the padding too, so that a NaN in it is everywhere; an image's element meets only its neighbours.
        wide = [_wide(tuple(ins[slot].shape), shape, slot) for slot in slots if slot == 1]
        return [_linear(eqn, ins, slot, 1.0) for slot in slots if slot == 0] + wide
    shaped = _alike if name in ELEMENTWISE or name in SAME_PLACE else _wide
    return [shaped(tuple(np.shape(ins[slot])), shape, slot) for slot in slots]


def _alike(shape: tuple[int, ...], out: tuple[int, ...], slot: int) -> Flow:
    """Elementwise where the shapes say so; axes of size 1 stretch, and a scalar meets every element."""
    if shape == out:
        return Flow(slot, lambda mask: mask, lambda mask: mask)
    if len(shape) != len(out) or any(size not in (1, whole) for size, whole in zip(shape, out, strict=True)):
        return _wide(shape, out, slot)
    stretched = tuple(axis for axis, (size, whole) in enumerate(zip(shape, out, strict=True)) if size != whole)
    return Flow(slot, lambda mask: np.broadcast_to(mask, out), lambda mask: np.asarray(mask.any(axis=stretched, keepdims=True)))


def _wide(shape: tuple[int, ...], out: tuple[int, ...], slot: int) -> Flow:
    return Flow(slot, lambda mask: np.broadcast_to(mask.any(), out), lambda mask: np.broadcast_to(mask.any(), shape))


def _along(eqn: Any, shape: tuple[int, ...], out: tuple[int, ...], slot: int) -> Flow:
    axes = tuple(axis for axis in ALONG[eqn.primitive.name](eqn, len(shape)) if 0 <= axis < len(shape))
    keeps = eqn.primitive.name in KEEPS_AXES
    batch = tuple(size for axis, size in enumerate(shape) if axis not in axes)

    def push(mask: Mask) -> Mask:
        found = np.asarray(mask.any(axis=axes, keepdims=keeps))
        if keeps or found.shape == out:
            return np.broadcast_to(found, out)
        # Linear algebra: what remains are the batch dimensions, and results may have more or fewer than two others.
        return np.broadcast_to(found.reshape(batch + (1,) * (len(out) - len(batch))), out)

    def pull(mask: Mask) -> Mask:
        if keeps:
            return np.broadcast_to(mask.any(axis=axes, keepdims=True), shape)
        found = mask if mask.shape == batch else np.asarray(mask.any(axis=tuple(range(len(batch), mask.ndim))))
        return np.broadcast_to(np.expand_dims(found, axes), shape)

    return Flow(slot, push, pull)


def _permuted(eqn: Any, ins: Sequence[Any], output: int, slots: list[int]) -> list[Flow]:
    """`sort` and `top_k`: where each element was before, along the sorted axis."""
    if eqn.primitive.name == "top_k":
        axis = eqn.params.get("axis", ins[0].ndim - 1) % ins[0].ndim
        order = np.asarray(eqn.primitive.bind(*ins, **eqn.params)[1])
    else:
        axis = eqn.params["dimension"]
        places = np.indices(ins[0].shape, np.int32)[axis]
        order = np.asarray(eqn.primitive.bind(*ins, places, **{**eqn.params, "is_stable": True})[-1])
    size = int(np.prod(ins[output].shape, dtype=np.int64))
    origin = np.take_along_axis(np.arange(size).reshape(ins[output].shape), order, axis)
    return [_from_numbers(origin, 0, tuple(ins[slot].shape), slot) for slot in slots if slot == output]


def _running(eqn: Any, slot: int) -> Flow:
    """A cumulative operation: an output depends on the elements up to its own, from either end."""
    axis, backwards = eqn.params["axis"], eqn.params["reverse"]

    def spread(mask: Mask, flip: bool) -> Mask:
        turned = np.flip(mask, axis) if flip else mask
        found = np.logical_or.accumulate(turned, axis=axis)
        return np.flip(found, axis) if flip else found

    return Flow(slot, lambda mask: spread(mask, backwards), lambda mask: spread(mask, not backwards))


def _moved(eqn: Any, ins: Sequence[Any], output: int, run: Any, slots: list[int]) -> list[Flow]:
    """Run the move on the numbers of the elements: where each came from is then read off."""
    moved = [slot for slot in moved_operands(eqn.primitive.name, len(ins)) if slot < len(ins)]
    numbers, start = [], {}
    total = 0
    for slot, value in enumerate(ins):
        if slot in moved:
            size = int(np.prod(np.shape(value), dtype=np.int64))
            start[slot] = total
            numbers.append(np.arange(total, total + size).reshape(np.shape(value)))
            total += size
        else:
            numbers.append(np.asarray(value))
    origin = run(eqn.params, *numbers)[output]
    return [_from_numbers(origin, start[slot], np.shape(ins[slot]), slot) for slot in slots if slot in start]


def _from_numbers(origin: np.ndarray, start: int, shape: tuple[int, ...], slot: int) -> Flow:
    size = int(np.prod(shape, dtype=np.int64))
    local = origin - start
    mine = (local >= 0) & (local < size)

    def push(mask: Mask) -> Mask:
        if not size:
            return np.zeros(origin.shape, bool)
        return mine & mask.reshape(-1)[np.where(mine, local, 0)]

    def pull(mask: Mask) -> Mask:
        found = np.zeros(size, bool)
        found[local[mine & mask]] = True
        return found.reshape(shape)

    return Flow(slot, push, pull)


def _numbered(eqn: Any, ins: Sequence[Any], slots: list[int]) -> list[Flow]:
    """`gather` and `scatter`, run by JAX on element numbers; a place filled from nowhere gets a number that nobody owns."""
    params = dict(eqn.params)
    numbers, start, total = [], {}, 0
    moved = (0,) if eqn.primitive.name == "gather" else (0, 2)
    for slot, value in enumerate(ins):
        if slot in moved:
            size = int(np.prod(np.shape(value), dtype=np.int64))
            start[slot] = total
            numbers.append(np.arange(total, total + size, dtype=np.int32).reshape(np.shape(value)))
            total += size
        else:
            numbers.append(value)
    if "fill_value" in params:
        params["fill_value"] = -1
    origin = np.asarray(eqn.primitive.bind(*numbers, **params))
    return [_from_numbers(origin, start[slot], np.shape(ins[slot]), slot) for slot in slots if slot in start]


def _contracted(eqn: Any, ins: Sequence[Any], out: tuple[int, ...], slots: list[int]) -> list[Flow]:
    """A row of one operand and a column of the other: all other axes of the output come from the partner alone."""
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    found = []
    for slot in slots:
        summed, batch = (left_sum, left_batch) if slot == 0 else (right_sum, right_batch)
        shape = tuple(ins[slot].shape)
        free = [axis for axis in range(len(shape)) if axis not in summed and axis not in batch]
        partner = len(ins[1 - slot].shape) - len(summed) - len(batch)
        own = slice(len(batch), len(batch) + len(free)) if slot == 0 else slice(len(batch) + partner, len(out))
        others = tuple(axis for axis in range(len(batch), len(out)) if not own.start <= axis < own.stop)
        order = [*batch, *free]

        def push(mask: Mask, summed=summed, order=order, others=others) -> Mask:
            kept = np.asarray(mask.transpose([*order, *summed]).any(axis=tuple(range(len(order), mask.ndim))))
            return np.broadcast_to(np.expand_dims(kept, others), out)

        def pull(mask: Mask, summed=summed, order=order, others=others, shape=shape) -> Mask:
            kept = np.asarray(mask.any(axis=others))
            spread = np.broadcast_to(kept.reshape(kept.shape + (1,) * len(summed)), [shape[axis] for axis in [*order, *summed]])
            return spread.transpose(np.argsort([*order, *summed]))

        found.append(Flow(slot, push, pull))
    return found


def _linear(eqn: Any, ins: Sequence[Any], slot: int, other: float) -> Flow:
    """An equation linear in each operand, run on masks; its transpose leads back. The other operands are all `other`."""
    dtype = ins[slot].dtype
    fixed = [np.full(value.shape, other, value.dtype) if nonfinite.is_inexact(value) else value for value in ins]
    params = {**eqn.params, "preferred_element_type": None} if "preferred_element_type" in eqn.params else eqn.params

    def apply(x: Any) -> Any:
        return eqn.primitive.bind(*[x if at == slot else value for at, value in enumerate(fixed)], **params)

    return _by_transposing(apply, ins[slot].shape, dtype, slot)


def _windowed(eqn: Any, x: Any, slot: int) -> Flow:
    """A reduction over sliding windows: the sum over the same windows of a mask."""
    names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")

    def apply(mask: Any) -> Any:
        return jax.lax.reduce_window(mask, 0.0, jax.lax.add, *(eqn.params[name] for name in names))

    return _by_transposing(apply, x.shape, np.float32, slot)


def _by_transposing(apply: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any, slot: int) -> Flow:
    """The flow of a function that is linear: forward on masks, and back by its transpose."""

    def push(mask: Mask) -> Mask:
        return np.asarray(apply(jax.numpy.asarray(mask, dtype))) != 0

    def pull(mask: Mask) -> Mask:
        primal, transpose = jax.vjp(apply, jax.numpy.zeros(shape, dtype))
        return np.asarray(transpose(jax.numpy.asarray(mask, primal.dtype))[0]) != 0

    return Flow(slot, push, pull)
