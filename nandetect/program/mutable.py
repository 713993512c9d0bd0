"""Mutable arrays among the arguments of a step (`jax.new_ref`): told as arrays that a call changes in place, as flax's nnx changes a model.

What a mutable array holds is gone when it is written to, and no replay may write to the program's own. So a step is given each in a `Held`,
whose one leaf is its value: before the call the one that it had, afterwards the new one.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from jax.core import Tracer

from nandetect import compat, effects
from nandetect.annotations import Array, Pytree

REFS = compat.ref_types()


class Held:
    """A mutable array for one call: its value, and itself where the call is the program's own."""

    __slots__ = ("ref", "value")

    def __init__(self, value: Array, ref: Any = None):
        self.value, self.ref = value, ref


class _NoKey:
    """The way from a `Held` to its value: in a name it is not to be seen."""

    def __str__(self) -> str:
        return ""


def _children(held: Held) -> tuple[list[tuple[Hashable, Array]], None]:
    return [(_NoKey(), held.value)], None


jax.tree_util.register_pytree_with_keys(Held, _children, lambda _, children: Held(*children))

# What each mutable array held after the last call that was watched, as long as it lives: the next call is given the same array.
_LATEST: dict[int, tuple[weakref.ref[Any], Any]] = {}


def are_among(leaves: Iterable[object]) -> bool:
    """Whether any of these is a mutable array."""
    return not REFS.isdisjoint(map(type, leaves))


def held(tree: Pytree, live: bool = True) -> Pytree:
    """A pytree with each mutable array in a `Held`; `live` ones are written to by the call."""
    return jax.tree.map(lambda leaf: _held(leaf, live) if type(leaf) in REFS else leaf, tree)


def _held(ref: Any, live: bool) -> Held:
    known, value = _LATEST.get(id(ref), (None, None))
    if known is None or known() is not ref or value is None or value.is_deleted():
        value = ref[...]
    return Held(value, ref if live else None)


def written(ref: object) -> None:
    """The program has written to a mutable array outside of any call that is watched."""
    _LATEST.pop(id(ref), None)


def holding(step: Callable[..., Pytree], aside: Callable[[], AbstractContextManager[object]] = nullcontext) -> Callable[..., Pytree]:
    """A step that takes a `Held` for each mutable array, and leaves in it what the array holds afterwards; that is read `aside`."""

    @functools.wraps(step)
    def of_held(*args: Pytree, **kwargs: Pytree) -> Pytree:
        every = [leaf for leaf in jax.tree.leaves((args, kwargs), is_leaf=_is_held) if _is_held(leaf)]
        with aside():
            refs = [compat.new_ref(one.value) if one.ref is None else one.ref for one in every]
        rest = iter(refs)
        given, named = jax.tree.map(lambda leaf: next(rest) if _is_held(leaf) else leaf, (args, kwargs), is_leaf=_is_held)
        returned = step(*given, **named)
        with aside():
            effects.settled([compat.ref_buffer(ref) for ref in refs if type(ref) in REFS])
            for one, ref in zip(every, refs, strict=True):
                _look(one, ref)
        return returned

    return of_held


def _is_held(leaf: object) -> bool:
    return isinstance(leaf, Held)


def _look(one: Held, ref: Any) -> None:
    """Take over what a mutable array holds now."""
    one.value = ref[...]
    if one.ref is not None and not isinstance(one.value, Tracer):
        number = id(ref)
        _LATEST[number] = weakref.ref(ref, lambda gone: _LATEST.pop(number, None)), one.value
