"""Half precision: what leaves its range on the way to a result that is in it."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import Env, Form, Found
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
            yield from _widened(look, anchor)


def _widened(look: Look, anchor: Node) -> Iterator[Found]:
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
    yield look.found(Form(value, ", ".join(edits.values())), "same", CODES[anchor.name], at_anchor=anchor, edits=edits)


def cast(look: Look) -> Iterator[Found]:
    """A cast of what half precision does not reach to: it is kept at the ends of the narrower type."""
    node = look.node
    if node not in look.anchors or jnp.dtype(node.params["new_dtype"]) != jnp.float16:
        return
    given = look.origin.operands[0].value if look.origin.operands else None
    code = "ND249" if isinstance(given, float) and given <= -MASKS else "ND251"
    look.begin()
    x = look.leaf(node.ins[0], node)

    def value(env: Env, times: float = 1.0) -> Array:
        ends = jnp.finfo(jnp.float16)
        return look.rebound(env, [node.ins[0]], [jnp.clip(env[x], times * float(ends.min), times * float(ends.max))])

    text = f"jnp.clip({{{x}}}, jnp.finfo(jnp.float16).min, jnp.finfo(jnp.float16).max).astype(jnp.float16)"
    yield look.found(Form(value, text, other=lambda env: value(env, 0.5)), "bound", code)


def _is_half(x: Array) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) and jnp.dtype(x.dtype).itemsize == 2


_ALL = ("div", "mul", "sub", "add", "sqrt", "rsqrt", "log", "reduce_sum", "dot_general", "convert_element_type", "tanh", "logistic")
PATTERNS: Patterns = {**dict.fromkeys(_ALL, (in_single,)), "convert_element_type": (cast, in_single)}
