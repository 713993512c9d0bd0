"""The parameters of a model as paths beside arrays, whatever pytree holds them: dicts, flax nnx or linen, equinox, haiku."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError

# Names of what is no kernel though it may have two axes: the biases and scales of stacked layers, running statistics.
_VECTORS = re.compile(r"^(b|bias\w*|b_?\d+|beta|gamma|scale\w*|offset|shift|mean|var|ln\w*|norm\w*|g)$")
_EMBEDDINGS = re.compile(r"(^|[._\[\]'])(\w*embed\w*|emb|wte|wpe|pos\w*|tokens?|codebook|lookup|cls_?token)($|[._\[\]'])", re.IGNORECASE)


def is_floating(leaf: object) -> bool:
    """Whether a leaf is an array that may be a parameter."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and hasattr(leaf, "shape") and bool(jnp.issubdtype(dtype, jnp.floating))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One floating array of the parameters. `number` counts the floating leaves in pytree order; `owned` says that an object's attribute
    holds it (as in equinox and flax nnx) and not a dict."""

    number: int
    path: str
    array: Array
    owned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> str:
        return str(self.array.dtype)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return re.split(r"[.\[\]]+", self.path.rstrip("]"))[-1]

    @property
    def stores_outputs_first(self) -> bool:
        """Whether it is an attribute called `weight`: equinox keeps it as (out, in, *window), all others as (*window, in, out)."""
        return self.owned and self.name.startswith("weight")

    @property
    def is_vector(self) -> bool:
        return len(self.shape) < 2 or bool(_VECTORS.match(self.name))

    @property
    def is_embedding(self) -> bool:
        return bool(_EMBEDDINGS.search(self.path))

    def values(self) -> np.ndarray:
        """The array on the host, in its own dtype."""
        return np.asarray(self.array)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The floating leaves of a pytree. `rebuild(leaves)` is the pytree with others in their place."""

    all: tuple[Parameter, ...]
    rebuild: Callable[[Sequence[Array]], Pytree]

    def leaves(self) -> list[Array]:
        return [parameter.array for parameter in self.all]


def of(params: Pytree) -> Parameters:
    """Every floating array in a pytree. Raises `UsageError` where there is none."""
    flat, tree = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in flat]
    floating = [(place, path, leaf) for place, (path, leaf) in enumerate(flat) if is_floating(leaf)]
    if not floating:
        raise UsageError(f"audit_init wants parameters, a pytree with floating arrays in it; {type(params).__name__} has none")

    def rebuild(values: Sequence[Array]) -> Pytree:
        rebuilt = list(leaves)
        for (place, _, _), value in zip(floating, values, strict=True):
            rebuilt[place] = value
        return jax.tree.unflatten(tree, rebuilt)

    every = tuple(
        Parameter(number=number, path=written(path), array=leaf, owned=_owned(path)) for number, (_, path, leaf) in enumerate(floating)
    )
    return Parameters(every, rebuild)


def written(path: Sequence[object]) -> str:
    """A pytree path as a person would write it: `dense.kernel`, `layers[0].w`."""
    parts = ""
    for key in _without_value(path):
        if isinstance(key, jax.tree_util.SequenceKey):
            parts += f"[{getattr(key, 'idx', '')}]"
        else:
            name = getattr(key, "name", None) if isinstance(key, jax.tree_util.GetAttrKey) else getattr(key, "key", key)
            parts += f"[{name}]" if isinstance(name, int) else f"{'.' if parts else ''}{name}"
    return parts or "params"


def _without_value(path: Sequence[object]) -> Sequence[object]:
    """A path without the `.value` or `.raw_value` behind which flax's nnx keeps an array."""
    last = path[-1] if path else None
    return path[:-1] if len(path) > 1 and getattr(last, "name", "") in ("value", "raw_value", "_value") else path


def _owned(path: Sequence[object]) -> bool:
    """Whether an attribute of an object holds the array at a path."""
    keys = _without_value(path)
    return bool(keys) and isinstance(keys[-1], jax.tree_util.GetAttrKey)
