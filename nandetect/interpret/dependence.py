"""Which elements of its operands an element of an equation's output depends on, as masks going either way.

`push(marked operand)` marks the outputs that depend on a marked element; `pull(marked output)` marks the elements that it depends on.
A primitive's record says which rule of the table below it falls under; one that is not known depends on everything, which is never wrong,
only wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.typing import DTypeLike

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret.movement import MOVES
from nandetect.nonfinite import Mask
from nandetect.primitives import Depends
from nandetect.registry import Registry


@dataclass(frozen=True, slots=True)
class Flow:
    """How one operand (`slot`) of an equation reaches one of its outputs: a mask of the one, carried to a mask of the other."""

    slot: int
    push: Callable[[Mask], Mask]
    pull: Callable[[Mask], Mask]


Rule = Callable[[JaxprEqn, Sequence[Array], int, list[int]], list[Flow]]
RULES: Registry[Depends, Rule] = Registry()


def flows(eqn: JaxprEqn, ins: Sequence[Array], output: int) -> list[Flow]:
    """The flow of every inexact operand of an equation into its `output`-th result."""
    slots = [slot for slot, value in enumerate(ins) if nonfinite.is_inexact(value)]
    try:
        return RULES[primitives.of(eqn).depends](eqn, ins, output, slots)
    # Another library's primitive of the same name has other operands and parameters.
    except (KeyError, TypeError, ValueError, IndexError):
        return _widely(eqn, ins, output, slots)


def _shape(eqn: JaxprEqn, output: int) -> tuple[int, ...]:
    return tuple(compat.aval(eqn.outvars[output]).shape)


@RULES.rule(Depends.WIDE)
def _widely(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    return [_wide(np.shape(ins[slot]), _shape(eqn, output), slot) for slot in slots]


@RULES.rule(Depends.ELEMENTWISE)
def _elementwise(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    return [_alike(np.shape(ins[slot]), _shape(eqn, output), slot) for slot in slots]


def _alike(shape: tuple[int, ...], out: tuple[int, ...], slot: int) -> Flow:
    """Elementwise where the shapes say so; axes of size 1 stretch, and a scalar meets every element."""
    if shape == out:
        return Flow(slot, lambda mask: mask, lambda mask: mask)
    if len(shape) != len(out) or any(size not in (1, whole) for size, whole in zip(shape, out, strict=True)):
        return _wide(shape, out, slot)
    stretched = tuple(axis for axis, (size, whole) in enumerate(zip(shape, out, strict=True)) if size != whole)
    return Flow(slot, lambda mask: np.broadcast_to(mask, out), lambda mask: np.asarray(mask.any(axis=stretched, keepdims=True)))


def _wide(shape: tuple[int, ...], out: tuple[int, ...], slot: int) -> Flow:
    """The flow in which every element of the output depends on every one of the operand."""
    return Flow(slot, lambda mask: np.broadcast_to(mask.any(), out), lambda mask: np.broadcast_to(mask.any(), shape))


@RULES.rule(Depends.ALONG)
def _along_axes(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    primitive, out = primitives.of(eqn), _shape(eqn, output)
    assert primitive.axes is not None
    along = []
    for slot in slots:
        shape = np.shape(ins[slot])
        axes = tuple(axis for axis in primitive.axes(eqn.params, len(shape)) if 0 <= axis < len(shape))
        along.append(_along(axes, primitive.keeps_axes, shape, out, slot))
    return along


def _along(axes: tuple[int, ...], keeps: bool, shape: tuple[int, ...], out: tuple[int, ...], slot: int) -> Flow:
    """The flow of an operand whose elements meet all others along `axes`; `keeps` where the output still has those axes."""
    batch = tuple(size for axis, size in enumerate(shape) if axis not in axes)

    def push(mask: Mask) -> Mask:
        marked = np.asarray(mask.any(axis=axes, keepdims=keeps))
        if keeps or marked.shape == out:
            return np.broadcast_to(marked, out)
        # Linear algebra: what remains are the batch dimensions, and results may have more or fewer than two others.
        return np.broadcast_to(marked.reshape(batch + (1,) * (len(out) - len(batch))), out)

    def pull(mask: Mask) -> Mask:
        if keeps:
            return np.broadcast_to(mask.any(axis=axes, keepdims=True), shape)
        marked = mask if mask.shape == batch else np.asarray(mask.any(axis=tuple(range(len(batch), mask.ndim))))
        return np.broadcast_to(np.expand_dims(marked, axes), shape)

    return Flow(slot, push, pull)


@RULES.rule(Depends.PERMUTED)
def _permuted(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
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
    return [from_numbers(origin, 0, tuple(ins[slot].shape), slot) for slot in slots if slot == output]


@RULES.rule(Depends.RUNNING)
def _running(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    """A cumulative operation: an output depends on the elements up to its own, from either end."""
    axis, backwards = eqn.params["axis"], eqn.params["reverse"]

    def spread(mask: Mask, flip: bool) -> Mask:
        turned = np.flip(mask, axis) if flip else mask
        reached = np.logical_or.accumulate(turned, axis=axis)
        return np.flip(reached, axis) if flip else reached

    return [Flow(slot, lambda mask: spread(mask, backwards), lambda mask: spread(mask, not backwards)) for slot in slots]


@RULES.rule(Depends.MOVED)
def _moved(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    """Run the move on the numbers of the elements: where each came from is then read off."""
    numbers, start = _numbers(eqn, ins, np.int64)
    origin = MOVES[eqn.primitive.name](eqn.params, *map(np.asarray, numbers))[output]
    return [from_numbers(origin, start[slot], np.shape(ins[slot]), slot) for slot in slots if slot in start]


def _numbers(eqn: JaxprEqn, ins: Sequence[Array], dtype: DTypeLike) -> tuple[list[Array], dict[int, int]]:
    """The operands with the elements that move replaced by their numbers, and the number at which each operand begins."""
    moved = primitives.of(eqn).moved_of(len(ins))
    numbers: list[Array] = []
    start, total = {}, 0
    for slot, value in enumerate(ins):
        if slot not in moved:
            numbers.append(value)
            continue
        size = math.prod(np.shape(value))
        start[slot] = total
        numbers.append(np.arange(total, total + size, dtype=dtype).reshape(np.shape(value)))
        total += size
    return numbers, start


def from_numbers(origin: np.ndarray, start: int, shape: tuple[int, ...], slot: int) -> Flow:
    """The flow of an operand whose elements are numbered from `start` on; `origin` holds the number of each element of the output."""
    size = math.prod(shape)
    local = origin - start
    mine = (local >= 0) & (local < size)

    def push(mask: Mask) -> Mask:
        if not size:
            return np.zeros(origin.shape, bool)
        return mine & mask.reshape(-1)[np.where(mine, local, 0)]

    def pull(mask: Mask) -> Mask:
        marked = np.zeros(size, bool)
        marked[local[mine & mask]] = True
        return marked.reshape(shape)

    return Flow(slot, push, pull)


@RULES.rule(Depends.NUMBERED)
def _numbered(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    """`gather` and `scatter`, run by JAX on element numbers; a place that no element was moved to gets -1, which is no element's number."""
    numbers, start = _numbers(eqn, ins, np.int32)
    params = {**eqn.params, "fill_value": -1} if "fill_value" in eqn.params else eqn.params
    origin = np.asarray(eqn.primitive.bind(*numbers, **params))
    if origin.shape != _shape(eqn, output):
        raise ValueError(f"{eqn.primitive.name} gives {origin.shape} of numbers")
    return [from_numbers(origin, start[slot], np.shape(ins[slot]), slot) for slot in slots if slot in start]


@RULES.rule(Depends.CONTRACTED)
def _contracted(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    """A row of one operand and a column of the other: all other axes of the output come from the partner alone."""
    out = _shape(eqn, output)
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    sides = []
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

        sides.append(Flow(slot, push, pull))
    return sides


@RULES.rule(Depends.ADDITIVE)
def _additive(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    return [_linear(eqn, ins, slot, 0.0) for slot in slots]


@RULES.rule(Depends.CONVOLVED)
def _convolved(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    """The kernel meets the padding too, so that a NaN in it is everywhere; an image's element meets only its neighbours."""
    wide = [_wide(np.shape(ins[slot]), _shape(eqn, output), slot) for slot in slots if slot == 1]
    return [_linear(eqn, ins, slot, 1.0) for slot in slots if slot == 0] + wide


def _linear(eqn: JaxprEqn, ins: Sequence[Array], slot: int, other: float) -> Flow:
    """The flow of an equation that is linear in each operand, run on masks and transposed; the other operands are filled with `other`."""
    dtype = ins[slot].dtype
    fixed = [np.full(value.shape, other, value.dtype) if nonfinite.is_inexact(value) else value for value in ins]
    params = {**eqn.params, "preferred_element_type": None} if "preferred_element_type" in eqn.params else eqn.params

    def apply(x: jax.Array) -> jax.Array:
        return eqn.primitive.bind(*[x if position == slot else value for position, value in enumerate(fixed)], **params)

    return _by_transposing(apply, ins[slot].shape, dtype, slot)


@RULES.rule(Depends.WINDOWED)
def _windowed(eqn: JaxprEqn, ins: Sequence[Array], output: int, slots: list[int]) -> list[Flow]:
    """A reduction over sliding windows: the sum over the same windows of a mask."""
    names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")

    def apply(mask: jax.Array) -> jax.Array:
        return jax.lax.reduce_window(mask, 0.0, jax.lax.add, *(eqn.params[name] for name in names))

    return [_by_transposing(apply, np.shape(ins[slot]), np.float32, slot) for slot in slots]


def _by_transposing(apply: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: DTypeLike, slot: int) -> Flow:
    """The flow of a function that is linear: forward on masks, and back by its transpose."""

    def push(mask: Mask) -> Mask:
        return np.asarray(apply(jax.numpy.asarray(mask, dtype))) != 0

    def pull(mask: Mask) -> Mask:
        primal, transpose = jax.vjp(apply, jax.numpy.zeros(shape, dtype))
        return np.asarray(transpose(jax.numpy.asarray(mask, primal.dtype))[0]) != 0

    return Flow(slot, push, pull)
