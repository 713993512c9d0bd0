"""What a step computes as its author wrote it: the operations, before differentiation and batching make others of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from nandetect import compat, primitives
from nandetect.program import sources
from nandetect.records import Source


@dataclass(eq=False)
class Node:
    """One operation: `primitive` on `ins` gave `outs`. `number` counts them; `site` is where it was called.

    `called` is the function whose derivative is a rule of its own, for one of those. `inside` are the calls of the inner jits that it
    stood in and that were opened, outermost first.
    `is_derivative` where JAX's differentiation made it: its value may be exchanged for no other, since its derivative is another's.
    """

    primitive: compat.Primitive
    params: Mapping[str, Any]
    ins: tuple[Array, ...]
    outs: tuple[Array, ...]
    site: compat.CallSite
    number: int
    is_derivative: bool = False
    called: str = ""
    inside: tuple[compat.CallSite, ...] = ()

    @property
    def name(self) -> str:
        """The primitive's name."""
        return self.primitive.name

    @cached_property
    def source(self) -> Source | None:
        """The user's line."""
        return sources.source_of(sources.frames_at(self.site))


@dataclass
class Graph:
    """All operations of one trace, by what they gave. Values are told apart by identity, and kept alive so that it stays theirs."""

    nodes: list[Node] = field(default_factory=list)
    _made: dict[int, Node] = field(default_factory=dict)
    _readers: dict[int, list[Node]] = field(default_factory=dict)

    def enter(self, node: Node) -> None:
        """Add an operation."""
        self.nodes.append(node)
        for out in node.outs:
            # A cast that does nothing gives its operand back: the first maker stays, and what has none is not made by what reads it.
            if not _is_one_of(out, node.ins):
                self._made.setdefault(id(out), node)
        for x in node.ins:
            self._readers.setdefault(id(x), []).append(node)

    def maker(self, value: Array) -> Node | None:
        """The operation that gave a value; None for an argument, a constant, or what comes from another trace."""
        return self._made.get(id(value))

    def readers(self, value: Array) -> Sequence[Node]:
        """The operations that read a value."""
        return self._readers.get(id(value), ())

    def moved(self, value: Array) -> Array:
        """What a value was before it was only stretched, reshaped or cast between floating types."""
        while (node := self.maker(value)) is not None:
            if self._moves(node):
                value = node.ins[0]
            elif node.name == "select_n" and (case := self._but_nan(node)) is not None:
                value = case
            else:
                break
        return value

    def _but_nan(self, node: Node) -> Array | None:
        """The one case that is not NaN everywhere: what a library puts where there is no result."""
        cases = [case for case in node.ins[1:] if not math.isnan(self.constant(case) or 0.0)]
        return cases[0] if len(cases) == 1 and len(node.ins) == 3 else None

    def _moves(self, node: Node) -> bool:
        record = primitives.named(node.name)
        if record.casts:
            return is_floating(node.ins[0]) and is_floating(node.outs[0])
        return len(node.outs) == 1 and bool(node.ins) and (record.same or record.reshapes or node.name == "stop_gradient")

    def constant(self, value: Array) -> float | None:
        """The number that a value is everywhere, where the program has it written down."""
        written = value
        while isinstance(value, Tracer):
            node = self.maker(value)
            if node is not None and node.name in _FOLDED:
                numbers = [self.constant(x) for x in node.ins]
                known = [number for number in numbers if number is not None]
                return _FOLDED[node.name](*known) if len(known) == len(numbers) else None
            if node is None or not (self._moves(node) or primitives.named(node.name).casts) or not node.ins:
                return None
            value = node.ins[0]
        array = np.asarray(value)
        if is_floating(written):
            # In the type that it ends in: an epsilon may be 0 there.
            array = array.astype(written.dtype)
        if array.size == 0 or (array.dtype.kind not in "fiub" and not is_floating(array)):
            return None
        first = array.reshape(-1)[0]
        return float(first) if bool((array == first).all()) or bool((array != array).all()) else None

    def written(self, value: Array) -> float | None:
        """The number that a value is everywhere, as it stood before it was rounded to the value's type."""
        while (node := self.maker(value)) is not None and (self._moves(node) or primitives.named(node.name).casts) and node.ins:
            value = node.ins[0]
        return None if isinstance(value, Tracer) or np.size(value) != 1 else float(np.asarray(value).reshape(()))

    def upstream(self, value: Array, leaves: Sequence[Array], most: int = 200) -> list[Node]:
        """The operations that a value was made by, in their order, not going past the leaves, nor beyond so many."""
        stop, found, waiting = {id(leaf) for leaf in leaves}, {}, [value]
        while waiting and len(found) < most:
            one = waiting.pop()
            node = None if id(one) in stop else self.maker(one)
            if node is not None and node.number not in found:
                found[node.number] = node
                waiting += node.ins
        return [found[number] for number in sorted(found)]

    def cone(self, root: Node, leaves: Sequence[Array]) -> tuple[list[Node], list[Array]]:
        """The operations by which `root` depends on the leaves, constants on the way and itself among them; and what else they read."""
        above: dict[int, Node] = {}
        for x in root.ins:
            if not _is_one_of(x, leaves):
                above.update({node.number: node for node in self.upstream(x, leaves)})
        depends, constant = {id(leaf) for leaf in leaves}, set[int]()
        kept: list[Node] = []
        for number in sorted(above):
            node = above[number]
            traced = [x for x in node.ins if isinstance(x, Tracer)]
            if any(id(x) in depends for x in traced):
                depends.update(map(id, node.outs))
                kept.append(node)
            elif all(id(x) in constant for x in traced):
                constant.update(map(id, node.outs))
                kept.append(node)
        read = {id(x): x for node in [*kept, root] for x in node.ins if isinstance(x, Tracer)}
        others = [cast(Array, x) for key, x in read.items() if key not in depends and key not in constant]
        return [*kept, root], others

    def descendants(self, node: Node, most: int = 400) -> Iterator[Node]:
        """The operations that an operation's results went into, the nearest first."""
        seen, waiting = {node.number}, [node]
        while waiting and len(seen) < most:
            one = waiting.pop(0)
            for out in one.outs:
                for reader in self.readers(out):
                    if reader.number not in seen:
                        seen.add(reader.number)
                        waiting.append(reader)
                        yield reader


# What of numbers gives a number that is known.
_FOLDED: dict[str, Callable[..., Any]] = {
    "sub": operator.sub,
    "add": operator.add,
    "mul": operator.mul,
    "neg": operator.neg,
    "log": lambda x: math.log(x) if x > 0 else None,
}


def _is_one_of(value: Array, values: Sequence[Array]) -> bool:
    return any(value is one for one in values)


def is_floating(value: Any) -> bool:
    """Whether a value is an array of real or complex floating numbers; a number that is written in a program is no array."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.inexact)
