"""Functions at the ends of where they are defined: angles, arcs, logarithms of 0."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array

from nandetect import primitives
from nandetect.fixing.forms import PICKED, Env, Form, Found, with_slope
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.patterns.loops import made_by_a_product


def angle(look: Look) -> Iterator[Found]:
    """The slope of atan2 at the origin of the plane."""
    node = look.node
    look.begin()
    y, x = look.leaf(node.ins[0], node), look.leaf(node.ins[1], node)

    def value(env: Env) -> Array:
        centre = (env[x] == 0) & (env[y] == 0)
        return jnp.arctan2(env[y], jnp.where(centre, 1, env[x]))

    def sloped(env: Env) -> Array:
        alive = (env[x] != 0) | (env[y] != 0)
        return with_slope(with_slope(value(env), env[y], alive), env[x], alive)

    text = f"jnp.arctan2({{{y}}}, jnp.where(({{{x}}} == 0) & ({{{y}}} == 0), 1.0, {{{x}}}))"
    yield look.found(Form(value, text, other=sloped), "guard", "ND235")


def at_an_end(look: Look) -> Iterator[Found]:
    """acos, asin, atanh at or beyond the ends of where they are defined."""
    node = look.node
    look.begin()
    x = look.leaf(node.ins[0], node)
    backward = look.origin.phase != "forward" or look.origin.derivative_of is not None
    code = "ND238" if node.name == "atanh" else "ND236" if backward else "ND237"
    given = look.origin.operands[0].value if look.origin.operands and not backward else None
    if isinstance(given, float) and abs(given) > 1 + 1e-4 and node.name != "acosh":
        return
    name = {"acos": "arccos", "asin": "arcsin", "atanh": "arctanh", "acosh": "arccosh"}[node.name]
    if node.name == "atanh" or node.name == "acosh":
        yield _clipped(look, x, name, code)
        return

    def value(env: Env) -> Array:
        inside = jnp.abs(env[x]) < 1
        ends = look.rebound(env, [node.ins[0]], [jax.lax.stop_gradient(jnp.clip(env[x], -1, 1))])
        return jnp.where(inside, look.rebound(env, [node.ins[0]], [jnp.where(inside, env[x], 0)]), ends)

    def sloped(env: Env) -> Array:
        return with_slope(value(env), env[x], jnp.abs(env[x]) < 1)

    inner = f"jnp.{name}(jnp.where(jnp.abs({{{x}}}) < 1, {{{x}}}, 0.0))"
    outer = f"jnp.{name}(jax.lax.stop_gradient(jnp.clip({{{x}}}, -1, 1)))"
    yield look.found(Form(value, f"jnp.where(jnp.abs({{{x}}}) < 1, {inner}, {outer})", other=sloped), "guard", code)


def _clipped(look: Look, x: str, name: str, code: str) -> Found:
    """The function of an operand that is kept a little inside; how far shows, since the function is infinite at the end."""
    operand = look.node.ins[0]

    def value(env: Env, edge: float = 1e-6) -> Array:
        low, high = (1 + edge, None) if name == "arccosh" else (-1 + edge, 1 - edge)
        return look.rebound(env, [operand], [jnp.clip(env[x], low, high)])

    def otherwise(env: Env) -> Array:
        return with_slope(value(env, 2e-6), env[x], jnp.abs(env[x]) < 1 if name == "arctanh" else env[x] > 1)

    bounds = "1 + 1e-6, None" if name == "arccosh" else "-1 + 1e-6, 1 - 1e-6"
    return look.found(Form(value, f"jnp.{name}(jnp.clip({{{x}}}, {bounds}))", other=otherwise), "bound", code)


def logit(look: Look) -> Iterator[Found]:
    """logit at 0 or 1."""
    node = look.node
    if node.called != "logit":
        return
    look.begin()
    x = look.leaf(node.ins[0], node)

    def value(env: Env, edge: float = 1e-6) -> Array:
        return jax.scipy.special.logit(jnp.clip(env[x], edge, 1 - edge))

    text = f"jax.scipy.special.logit(jnp.clip({{{x}}}, 1e-6, 1 - 1e-6))"
    yield look.found(Form(value, text, other=lambda env: value(env, 2e-6)), "bound", "ND212")


def bound_at_one(look: Look) -> Iterator[Found]:
    """A bound that was written a little below 1, and is 1 in its type."""
    for bound in look.graph.upstream(look.node.ins[0], (), most=8):
        if bound.name not in ("min", "clamp"):
            continue
        for slot, end in enumerate(bound.ins):
            written = look.graph.written(end)
            if look.constant(end) == 1 and written is not None and written < 1:
                yield _a_little_lower(look, bound, slot, written)


def _a_little_lower(look: Look, bound: Node, slot: int, written: float) -> Found:
    look.begin()
    others = [(number, x) for number, x in enumerate(bound.ins) if number != slot and look.constant(x) is None]
    leaves = {look.leaf(x, bound): x for _, x in others}
    dtype = bound.ins[slot].dtype

    def value(env: Env, times: float = 1.0) -> Array:
        lower = jnp.full(bound.ins[slot].shape, 1 - times * float(jnp.finfo(dtype).eps), dtype)
        return look.guarded(env, leaves, bound, slot, lower)

    return look.found(Form(value, PICKED, other=lambda env: value(env, 4.0)), "bound", "ND298")


def quantile(look: Look) -> Iterator[Found]:
    """The inverse of erf at -1 or 1: a quantile of 0 or 1."""
    node = look.node
    given = look.origin.operands[0].value if look.origin.operands else None
    if isinstance(given, int | float) and abs(given) > 1:
        return
    look.begin()
    x = look.leaf(node.ins[0], node)

    def value(env: Env, edge: float = 1e-6) -> Array:
        return look.rebound(env, [node.ins[0]], [jnp.clip(env[x], -1 + edge, 1 - edge)])

    text = f"jax.scipy.special.erfinv(jnp.clip({{{x}}}, -1 + 1e-6, 1 - 1e-6))"
    yield look.found(Form(value, text, other=lambda env: value(env, 2e-6)), "bound", "ND295")


def log_of_zero(look: Look) -> Iterator[Found]:
    """A logarithm of a 0 of which no more is known."""
    node = look.node
    given = look.origin.operands[0].value if look.origin.operands else None
    if node not in look.anchors or (isinstance(given, int | float) and given < 0):
        return
    look.begin()
    x = look.leaf(node.ins[0], node)
    code = "ND213"
    if any(primitives.named(event.primitive).draws for event in look.cause) or _is_drawn(look, node.ins[0]):
        code = "ND210"
    elif made_by_a_product(look, node.ins[0]) is not None:
        return
    elif (less := look.one_minus(node.ins[0])) is not None and _also_log_of(look, less):
        code = "ND212"

    def bounded(env: Env, times: float = 1.0) -> Array:
        return look.rebound(env, [node.ins[0]], [jnp.maximum(env[x], times * jnp.finfo(env[x].dtype).tiny)])

    text = f"jnp.{node.name}(jnp.maximum({{{x}}}, jnp.finfo({{{x}}}.dtype).tiny))"
    yield look.found(Form(bounded, text, other=lambda env: bounded(env, 1e6)), "bound", code)


def _is_drawn(look: Look, value: Array) -> bool:
    made = look.graph.upstream(value, (), most=150)
    return any(primitives.named(node.name).draws for node in made)


def _also_log_of(look: Look, value: Array) -> bool:
    # An inner jit that no form needs stays closed: it has the name of the function.
    return any("log" in (reader.name, reader.params.get("name")) for reader in look.graph.readers(look.graph.moved(value)))


PATTERNS: Patterns = {
    "custom_jvp_call": (logit,),
    "atan2": (angle,),
    "acos": (at_an_end,),
    "asin": (at_an_end,),
    "atanh": (at_an_end,),
    "acosh": (at_an_end,),
    "erf_inv": (quantile,),
    "log": (bound_at_one, log_of_zero),
    "log2": (bound_at_one, log_of_zero),
    "log1p": (bound_at_one,),
}
