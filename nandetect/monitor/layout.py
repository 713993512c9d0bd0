"""The leaves of a model: which arrays are measured, what they are called, and where each stands in the trees of a step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import jax

from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.history import Leaf
from nandetect.nonfinite import is_inexact


def path_name(path: Sequence[object]) -> str:
    """A pytree path as a person would write it: `dense.kernel`, `layers[0].w`, `['mlp/linear'].w`.

    No two leaves share a name, since the trees of a step are matched by it: so a key that is no identifier is quoted here, while
    `audit.parameters.written`, whose names are only read by people, does not quote it.
    """
    name = ""
    # `value`, the attribute in which flax keeps the array of a variable, tells the reader nothing.
    if len(path) > 1 and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    for key in path:
        part = getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))
        if isinstance(part, str) and part.isidentifier():
            name += f".{part}" if name else part
        else:
            name += f"[{part!r}]"
    return name or "params"


def named(tree: Pytree) -> list[tuple[str, Array]]:
    """The leaves of a tree with their names."""
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def of(tree: Pytree) -> tuple[Leaf, ...]:
    """The records of the floating and complex arrays of a tree; functions, keys and counters are passed over."""
    return tuple(Leaf(path=path, shape=tuple(leaf.shape), dtype=str(leaf.dtype)) for path, leaf in named(tree) if is_inexact(leaf))


def column(leaves: Sequence[Leaf], tree: Pytree) -> list[Array | None]:
    """The arrays of a tree in the order of the leaves, None where it has none."""
    arrays = dict(named(tree))
    return [arrays.get(leaf.path) for leaf in leaves]


class Layout:
    """The leaves of one model, as the first trees have them, and where they stand in any tree of it."""

    def __init__(self) -> None:
        self.leaves: tuple[Leaf, ...] = ()
        self._indices: dict[Hashable, list[int | None]] = {}

    def column(self, name: str, tree: Pytree) -> list[Array | None]:
        """The arrays of a tree in the order of the leaves, None where it has none. Raises `UsageError` for a tree of another model."""
        flat, structure = jax.tree.flatten(tree)
        indices = self._indices.get(structure)
        if indices is None:
            indices = self._indices[structure] = self._indices_in(name, tree)
        column: list[Array | None] = [None] * len(self.leaves)
        for array, index in zip(flat, indices, strict=True):
            if index is not None:
                column[index] = array
        return column

    def _indices_in(self, name: str, tree: Pytree) -> list[int | None]:
        """The index among the leaves of each array of a tree, None for what is not measured."""
        leaves = of(tree)
        if not self.leaves:
            self.leaves = leaves
        indices = {leaf.path: index for index, leaf in enumerate(self.leaves)}
        for leaf in leaves:
            if leaf.path not in indices:
                raise UsageError(f"`{name}` holds `{leaf.path}`, which this monitor has not seen before: use one Monitor for each model")
            shape = self.leaves[indices[leaf.path]].shape
            if leaf.shape != shape:
                raise UsageError(
                    f"`{leaf.path}` in `{name}` has the shape {leaf.shape}, and before {shape}: use one Monitor for each model"
                )
        return [indices[path] if is_inexact(leaf) else None for path, leaf in named(tree)]
