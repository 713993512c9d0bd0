"""Integers that wrapped around: the same arithmetic in floating point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from nandetect import primitives
from nandetect.fixing.forms import PICKED, Env, Form, Found
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.rebind import rebind
from nandetect.records import Event

ARITHMETIC = ("mul", "add", "sub", "integer_pow", "neg", "convert_element_type")
# The most operations between the integers and the number that is made of them.
LONGEST = 40


def wrapped(look: Look) -> Iterator[Found]:
    """What broke on a number that was made of integers, one of which wrapped: the number, from the same integers as floating numbers."""
    node = look.node
    event = next((event for event in look.cause if wraps(event)), None)
    if node not in look.anchors or event is None:
        return
    said = told(event)
    for x in node.ins:
        cast = look.cast_of_integer(x)
        if cast is not None:
            yield from _in_floating_point(look, cast, said)
    yield look.advised("ND259", said)


def told(event: Event) -> str:
    """`0 - 1 is beyond uint8`."""
    one, other = (operand.value for operand in event.operands)
    return f"{one} {primitives.named(event.primitive).infix} {other} is beyond {event.dtype or event.operands[0].dtype}"


def wraps(event: Event) -> bool:
    """Whether an event is integer arithmetic whose result its type does not hold."""
    record, values = primitives.named(event.primitive), [operand.value for operand in event.operands]
    integers = [x for x in values if isinstance(x, int) and not isinstance(x, bool)]
    if not record.infix or record.exact is None or len(values) != 2 or len(integers) != 2:
        return False
    ends, exact = np.iinfo(event.dtype or event.operands[0].dtype), record.exact({}, *([x] for x in integers))
    return exact is not None and not ends.min <= exact <= ends.max


def _in_floating_point(look: Look, cast: Node, said: str) -> Iterator[Found]:
    made = [node for node in look.graph.upstream(cast.ins[0], (), most=LONGEST) if jnp.issubdtype(node.outs[0].dtype, jnp.integer)]
    outs = {id(out) for node in made for out in node.outs}
    given = list({id(x): x for node in made for x in node.ins if id(x) not in outs and look.constant(x) is None}.values())
    if not given or not all(
        node.name in ARITHMETIC or primitives.named(node.name).same or primitives.named(node.name).reshapes for node in made
    ):
        return
    look.begin()
    names = [look.leaf(x) for x in given]
    number = cast.outs[0]
    nodes = [*made, cast]

    def value(env: Env) -> Array:
        floating = [env[name].astype(jnp.float32) for name in names]
        exact = rebind(nodes, given, floating, _as_floating)[0]
        return look.rebound(env, [number], [exact.astype(number.dtype).reshape(number.shape)])

    yield look.found(Form(value, PICKED), "guard", "ND259", said=said)


def _as_floating(dtype: Any) -> Any:
    return np.dtype("float32") if jnp.issubdtype(dtype, jnp.integer) else dtype


PATTERNS: Patterns = dict.fromkeys(("div", "sqrt", "rsqrt", "log", "pow", "integer_pow", "mul", "exp"), (wrapped,))
