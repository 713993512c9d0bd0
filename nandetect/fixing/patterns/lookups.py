"""What is read from a table: beyond its end, or at an entry that is infinite."""

from __future__ import annotations

from collections.abc import Iterator

from jax import Array, lax

from nandetect.fixing.forms import PICKED, Env, Form, Found
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.patterns import integers

READS = ("gather", "dynamic_slice")
# How many operations a value may be from the reading of a table.
NEAR = 6


def is_read_from_a_table(look: Look, value: Array) -> bool:
    """Whether a value was read at an index that was computed, or made of what was so."""
    return any(node.name in READS for node in look.graph.upstream(value, (), most=NEAR))


def out_of_bounds(look: Look) -> Iterator[Found]:
    """A gather whose index is out of bounds, where it reads NaN: the entry at the end is read in its place."""
    node = look.node
    if node not in look.anchors or node.params.get("mode") != lax.GatherScatterMode.FILL_OR_DROP:
        return
    look.begin()
    table, index = look.leaf(node.ins[0], node), look.leaf(node.ins[1], node)

    def value(env: Env) -> Array:
        return _read(node, env[table], env[index], "clip")

    def empty(env: Env) -> Array:
        return _read(node, env[table], env[index], "fill", 0)

    said = next((integers.told(event) for event in look.cause if integers.wraps(event)), "")
    yield look.found(Form(value, PICKED, other=empty), "bound", "ND291", said=said)


def _read(node: Node, table: Array, index: Array, mode: str, fill: float | None = None) -> Array:
    names = ("dimension_numbers", "slice_sizes", "unique_indices", "indices_are_sorted")
    return lax.gather(table, index, **{name: node.params[name] for name in names}, mode=mode, fill_value=fill)


PATTERNS: Patterns = {"gather": (out_of_bounds,)}
