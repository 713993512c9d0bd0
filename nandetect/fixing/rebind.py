"""Bind operations once more, on other values, and in another width where asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

from nandetect import compat, primitives
from nandetect.fixing.graph import Node

# A type of numbers in place of another.
Wider = Callable[[Any], Any]


@dataclass(frozen=True)
class Instead:
    """Another value for one operand of one operation."""

    node: Node
    slot: int
    value: Array


class NotAgain(Exception):
    """An operation whose value cannot be had again."""


def rebind(
    nodes: Sequence[Node], leaves: Sequence[Array], values: Sequence[Array], wider: Wider | None = None, instead: Instead | None = None
) -> list[Array]:
    """The results of the last of some operations with these values for the leaves.

    With `instead`, one operand of one operation is another value there, whoever else reads it. With `wider`, every floating type in the
    operations' own parameters becomes what that gives. Raises `NotAgain` where a value that was traced is needed and is no leaf.
    """
    known: dict[int, Array] = {id(leaf): value for leaf, value in zip(leaves, values, strict=True)}

    def read(x: Any) -> Any:
        if id(x) in known:
            return known[id(x)]
        if wider is not None and hasattr(x, "dtype") and not isinstance(x, Tracer):
            return jnp.asarray(x, wider(x.dtype))
        return x

    outs: list[Array] = []
    for node in nodes:
        params = {key: widened(value, wider) for key, value in node.params.items()} if wider else node.params
        args = [read(x) for x in node.ins]
        if instead is not None and node is instead.node:
            args[instead.slot] = instead.value
        if wider is not None and any(isinstance(x, Tracer) and id(x) not in known for x in node.ins):
            raise NotAgain(node.name)
        if wider is not None and primitives.named(node.name).casts and not any(isinstance(x, Tracer) for x in (*node.ins, *args)):
            # A number that is written down is rounded to the type that it was written for.
            outs = [jnp.asarray(np.asarray(args[0]).astype(node.params["new_dtype"]).astype(params["new_dtype"]))]
        else:
            outs = _bound(node, dict(params), _alike(args)) if wider else compat.rebind(node.primitive, dict(params), args)
        known.update((id(old), new) for old, new in zip(node.outs, outs, strict=False))
    return outs


def _bound(node: Node, params: dict[str, Any], args: list[Any]) -> list[Array]:
    """An operation in another type; one that carries a program for the old type goes in through the front door."""
    if node.name == "scatter-add":
        kept = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
        return [lax.scatter_add(*args, **{name: params[name] for name in kept})]
    return compat.rebind(node.primitive, params, args)


def _alike(args: list[Any]) -> list[Any]:
    """Floating operands of one type: what was a cast before may be none any more."""
    floating = [x.dtype for x in args if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]
    if len(set(floating)) <= 1:
        return args
    widest = max(floating, key=lambda dtype: np.dtype(dtype).itemsize)
    return [x.astype(widest) if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) else x for x in args]


def widened(value: Any, wider: Wider) -> Any:
    """A parameter with its floating types wider."""
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return wider(np.dtype(value))
    return value


def doubled(dtype: Any) -> Any:
    """float64 for a real floating type, complex128 for a complex one."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype("complex128")
    return np.dtype("float64") if jnp.issubdtype(dtype, jnp.floating) else dtype


def singled(dtype: Any) -> Any:
    """float32 for a narrower floating type."""
    return np.dtype("float32") if jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype).itemsize < 4 else dtype
