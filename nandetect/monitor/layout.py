"""The leaves of a model: which of them are measured, what they are called, and where each stands in the trees of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from nandetect.errors import UsageError
from nandetect.history import Leaf
from nandetect.nonfinite import is_inexact


def path_name(path: Sequence[Any]) -> str:
    """A pytree path as a person would write it: `dense.kernel`, `layers[0].w`."""
    name = ""
    # The attribute in which flax keeps the array of a variable says nothing.
    if len(path) > 1 and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    for key in path:
        part = getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))
        if isinstance(part, str) and part.isidentifier():
            name += f".{part}" if name else part
        else:
            name += f"[{part!r}]"
    return name or "params"


def named(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree with their names."""
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def of(tree: Any) -> tuple[Leaf, ...]:
    """The records of the floating and complex arrays of a tree; functions, keys and counters are passed over."""
    return tuple(Leaf(path=path, shape=tuple(leaf.shape), dtype=str(leaf.dtype)) for path, leaf in named(tree) if is_inexact(leaf))


def column(leaves: Sequence[Leaf], tree: Any) -> list[Any]:
    """The arrays of a tree in the order of the leaves, None where it has none."""
    arrays = dict(named(tree))
    return [arrays.get(leaf.path) for leaf in leaves]


class Layout:
    """The leaves of one model, as the first trees have them, and where they stand in any tree of it."""

    def __init__(self) -> None:
        self.leaves: tuple[Leaf, ...] = ()
        self._places: dict[Any, list[int | None]] = {}

    def column(self, name: str, tree: Any) -> list[Any]:
        """The arrays of a tree in the order of the leaves, None where it has none. Raises `UsageError` for a tree of another model."""
        flat, structure = jax.tree.flatten(tree)
        places = self._places.get(structure)
        if places is None:
            places = self._places[structure] = self._learn(name, tree)
        column = [None] * len(self.leaves)
        for leaf, place in zip(flat, places, strict=True):
            if place is not None:
                column[place] = leaf
        return column

    def _learn(self, name: str, tree: Any) -> list[int | None]:
        found = of(tree)
        if not self.leaves:
            self.leaves = found
        known = {leaf.path: place for place, leaf in enumerate(self.leaves)}
        for leaf in found:
            if leaf.path not in known:
                raise UsageError(f"`{name}` holds `{leaf.path}`, which this monitor has not seen before: use one Monitor for each model")
            if leaf.shape != self.leaves[known[leaf.path]].shape:
                shape = self.leaves[known[leaf.path]].shape
                raise UsageError(
                    f"`{leaf.path}` in `{name}` has the shape {leaf.shape}, and before {shape}: use one Monitor for each model"
                )
        return [known[path] if is_inexact(leaf) else None for path, leaf in named(tree)]
