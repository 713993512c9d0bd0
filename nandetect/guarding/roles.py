"""What becomes of a call's results: state that is handed back, metrics, and what stands beside them and is auxiliary."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from nandetect import nonfinite
from nandetect.guarding.links import Links

# The shape and the type of an array.
Kind = tuple[tuple[int, ...], Any]


class Values:
    """Some of the program's values, known again as long as it holds them. `told` is told of each that is entered."""

    def __init__(self, told: Callable[[object], None] = lambda value: None) -> None:
        self._used: dict[int, weakref.ref[Any]] = {}
        self._told = told

    def enter(self, value: object) -> None:
        """This is one of them."""
        if len(self._used) > 1000:
            self._used = {number: used for number, used in self._used.items() if used() is not None}
        self._used[id(value)] = weakref.ref(value)
        self._told(value)

    def __bool__(self) -> bool:
        return bool(self._used)

    def __contains__(self, value: object) -> bool:
        used = self._used.get(id(value))
        return used is not None and used() is value


def auxiliary(out: object, links: Links | None, given: Sequence[object]) -> frozenset[int]:
    """The indices of those leaves of a result that are neither handed back to the next call nor metrics.

    A metric is a single number, unless it stands in a record of what was tried: one that holds something in the shape of the state (the
    proposal of a sampler, the end of its trajectory). Of a step that hands no arrays back nobody knows what is done with its results:
    there, only such records are auxiliary, also when a loop has stacked them, and the state is what has the shape of an argument.
    """
    leaves = jax.tree_util.tree_flatten_with_path(out)[0]
    handed = frozenset(links.outs) if links is not None else frozenset()
    state = {_kind(leaf) for index, (_, leaf) in enumerate(leaves) if index in handed and nonfinite.is_inexact(leaf)}
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for index, (path, _) in enumerate(leaves):
        parts[path[0] if path else None].append(index)
    known = bool(state)
    if not known:
        kinds = {_kind(leaf) for leaf in given if nonfinite.is_inexact(leaf)}
        # The first part that looks like the arguments is what goes on.
        first = next((part for part in parts.values() if any(_kind(leaves[index][1]) in kinds for index in part)), [])
        handed, state = frozenset(first), kinds
    # A single number has the shape of any other.
    state = {kind for kind in state if kind[0]}
    tried = {
        index
        for part in parts.values()
        if len(leaves[part[0]][0]) > 1 and any(index not in handed and _resembles(leaves[index][1], state) for index in part)
        for index in part
    }
    beside = [index for index, (_, leaf) in enumerate(leaves) if index not in handed and (index in tried or (known and _size(leaf) > 1))]
    return frozenset(beside)


def may_be_auxiliary(out: object, given: Sequence[object], bad: Sequence[int]) -> bool:
    """Whether these leaves of a first result may turn out to be auxiliary once it is seen what is handed back."""
    leaves = [leaf for _, leaf in jax.tree_util.tree_flatten_with_path(out)[0]]
    kinds = {_kind(leaf) for leaf in given if nonfinite.is_inexact(leaf)}
    sound = [leaf for index, leaf in enumerate(leaves) if index not in bad]
    goes_on = any(nonfinite.is_inexact(leaf) and _kind(leaf) in kinds for leaf in sound)
    return goes_on and bool(bad) and max(bad) < len(leaves)


def _kind(leaf: Any) -> Kind:
    return getattr(leaf, "shape", ()), getattr(leaf, "dtype", None)


def _resembles(leaf: object, state: set[Kind]) -> bool:
    shape, dtype = _kind(leaf)
    return (shape, dtype) in state or (shape[1:], dtype) in state


def _size(leaf: Any) -> int:
    return getattr(leaf, "size", 1)
