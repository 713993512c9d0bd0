"""The leaves of a model: which of them are measured, what they are called, and where each stands in the trees of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from nandetect.history import Leaf
from nandetect.measure import is_inexact


def path_name(path: Sequence[Any]) -> str:
    """A pytree path as a person would write it: `dense.kernel`, `layers[0].w`."""
    name = ""
    # The attribute in which flax keeps the array of a variable says nothing.
    if len(path) > 1 and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    for key in path:
        part = getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))
        if isinstance(part, str) and part.replace("/", "_").isidentifier():
            name += f".{part}" if name else part
        else:
            name += f"[{part!r}]"
    return name or "params"


def leaves(tree: Any) -> dict[str, Any]:
    """The floating and complex arrays of a tree, by name; functions, keys, counters and what is None are passed over."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): leaf for path, leaf in flat if is_inexact(leaf)}


def leaf(path: str, array: Any) -> Leaf:
    """The record of an array."""
    return Leaf(path=path, shape=tuple(array.shape), dtype=str(array.dtype))
