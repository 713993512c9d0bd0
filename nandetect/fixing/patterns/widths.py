"""Half precision and less: what leaves its range on the way to a result that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import PICKED, Env, Form, Found
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.rebind import rebind, singled

CODES = {
    "dot_general": "ND250",
    "conv_general_dilated": "ND250",
    "square": "ND247",
    "mul": "ND247",
    "integer_pow": "ND247",
    "reduce_sum": "ND255",
    "cumsum": "ND255",
    "scatter-add": "ND255",
    "exp": "ND256",
    "add": "ND255",
    "log": "ND248",
    "div": "ND248",
    "rsqrt": "ND248",
}


# What is at least so negative is there to be nothing after a softmax.
MASKS = 1e5
# The most operations that are taken into float32 together.
LONGEST = 12


def in_single(look: Look) -> Iterator[Found]:
    """The operations from what broke to this one, in float32: what leaves half precision's range on the way comes back into it."""
    for anchor in look.anchors:
        if anchor.name in CODES and anchor.ins and _is_half(anchor.outs[0] if anchor.outs else anchor.ins[0]):
            yield from _widened(look, anchor, _code_of(look, anchor))
        elif (summed := summed_wide(look, anchor)) is not None:
            yield from _widened(look, anchor, CODES[summed.name])


def _code_of(look: Look, anchor: Node) -> str:
    """The hazard of what broke in half precision; of a quotient or a logarithm that of what its operand was made by."""
    if look.origin.derivative_of is not None and look.origin.primitive in CODES:
        # What its derivative does breaks.
        return CODES[look.origin.primitive]
    made = look.graph.upstream(anchor.ins[-1], (), most=12) if CODES[anchor.name] == "ND248" else []
    if any(look.graph.written(x) not in (None, 0) and look.constant(x) == 0 for node in made for x in node.ins):
        return "ND248"
    names = {node.name for node in made}
    return next((CODES[name] for name in ("exp", "reduce_sum") if name in names), CODES[anchor.name])


def summed_wide(look: Look, cast: Node) -> Node | None:
    """The operation whose result is cast back to half precision, of those that JAX does in single precision of itself."""
    if cast.name != "convert_element_type" or not _is_half_type(cast.params["new_dtype"]):
        return None
    node = look.graph.maker(cast.ins[0])
    before = look.graph.maker(node.ins[0]) if node is not None and node.name in CODES and node.ins else None
    return node if before is not None and before.name == "convert_element_type" and _is_half(before.ins[0]) else None


def _widened(look: Look, anchor: Node, code: str) -> Iterator[Found]:
    given = [x for x in anchor.ins if look.constant(x) is None]
    made, others = look.graph.cone(look.node, given)
    if anchor not in made or len(made) > LONGEST:
        return
    look.begin()
    names = [look.leaf(x, anchor) for x in given]
    leaves = dict(zip([*names, *(look.leaf(x) for x in others)], [*given, *others], strict=True))

    def value(env: Env) -> Array:
        wide = [env[name].astype(jnp.float32) if _is_half(env[name]) else env[name] for name in leaves]
        return rebind(made, [*leaves.values()], wide, singled)[0]

    edits = {name: f"{{{name}}}.astype(jnp.float32)" for name in names}
    if anchor.name == "convert_element_type":
        # The cast is JAX's own: what is written is the sum.
        yield look.found(Form(value, PICKED), "same", code, at_anchor=anchor)
        return
    yield look.found(Form(value, ", ".join(edits.values())), "same", code, at_anchor=anchor, edits=edits)


def cast(look: Look) -> Iterator[Found]:
    """A cast of what half precision does not reach to: it is kept at the ends of the narrower type."""
    node = look.node
    to = jnp.dtype(node.params["new_dtype"])
    if node not in look.anchors or to.itemsize > 2 or to == jnp.bfloat16 or not jnp.issubdtype(to, jnp.floating):
        return
    if summed_wide(look, node) is not None:
        return
    given = look.origin.operands[0].value if look.origin.operands else None
    code = "ND257" if to.itemsize == 1 else "ND249" if isinstance(given, float) and given <= -MASKS else "ND251"
    look.begin()
    x = look.leaf(node.ins[0], node)

    def value(env: Env, times: float = 1.0) -> Array:
        ends = jnp.finfo(to)
        return look.rebound(env, [node.ins[0]], [jnp.clip(env[x], times * float(ends.min), times * float(ends.max))])

    ends = f"jnp.finfo(jnp.{to})"
    text = f"jnp.clip({{{x}}}, {ends}.min, {ends}.max).astype(jnp.{to})"
    yield look.found(Form(value, text, other=lambda env: value(env, 0.5)), "bound", code)


def _is_half_type(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize == 2


def _is_half(x: Array) -> bool:
    return hasattr(x, "dtype") and _is_half_type(x.dtype)


_ALL = ("div", "mul", "sub", "add", "sqrt", "rsqrt", "log", "reduce_sum", "dot_general", "convert_element_type", "tanh", "logistic")
PATTERNS: Patterns = {**dict.fromkeys(_ALL, (in_single,)), "convert_element_type": (cast, in_single)}
