"""Roots and powers at zero, below zero by rounding, and variances by subtraction."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import Env, Form, Found, axes_text, with_slope
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.patterns.quotients import variance_of

# How far below 0 rounding can put a difference, in parts of what was subtracted.
ROUNDING = 1e-4


def at_zero(look: Look) -> Iterator[Found]:
    """The slope of a root or power at 0."""
    node, origin = look.node, look.origin
    if origin.phase != "backward" and origin.derivative_of is None:
        return
    x = node.ins[0]
    look.begin()
    name = look.leaf(x, node)

    def alive(env: Env) -> Array:
        return env[name] != 0 if node.name == "cbrt" else env[name] > 0

    def value(env: Env) -> Array:
        return look.where(env, x, env[name], alive(env))

    def sloped(env: Env) -> Array:
        return with_slope(value(env), env[name], alive(env))

    if node.name == "sqrt":
        squares, variance = look.sum_of_squares(x), variance_of(look, x)
        code = "ND223" if variance else "ND222" if squares and not _is_difference(look, x) else "ND221"
        if origin.phase == "update":
            code = "ND284"
        text = _where(name, ">", "jnp.sqrt({0})")
    else:
        code = "ND226"
        power = look.constant(node.ins[-1]) if node.name == "pow" else None
        raised = f"{power:.6g}" if power is not None else f"{{{look.leaf(node.ins[-1], node)}}}"
        shown = "jnp.cbrt({0})" if node.name == "cbrt" else "{0} ** " + raised
        text = _where(name, "!=" if node.name == "cbrt" else ">", shown)
    yield look.found(Form(value, text, other=sloped), "guard", code)


def _where(name: str, than: str, shown: str) -> str:
    """A function of `{0}` that is taken of numbers that are more than 0, or other than it, as text."""
    alive = f"{{{name}}} {than} 0"
    return f"jnp.where({alive}, {shown.replace('{0}', f'jnp.where({alive}, {{{name}}}, 1.0)')}, 0.0)"


def _is_difference(look: Look, value: Array) -> bool:
    return look.op(value, "sub") is not None


def below_zero(look: Look) -> Iterator[Found]:
    """The root of a difference that rounding put below 0."""
    node, origin = look.node, look.origin
    less, spectrum = look.op(node.ins[0], "sub", "add"), look.op(node.ins[0], "eigh")
    if less is None and spectrum is None:
        return
    given = origin.operands[0].value if origin.operands and origin.derivative_of is None else None
    if isinstance(given, int | float):
        known = [op.value for event in look.cause[:1] for op in event.operands] + [op.max for op in origin.operands[:1]]
        sizes = [abs(float(number)) for number in known if isinstance(number, int | float)]
        if given < -ROUNDING * max([1.0, *sizes]) or given > 0:
            return
    look.begin()
    x = look.leaf(node.ins[0], node)
    code = "ND225" if spectrum is None else "ND227"

    def value(env: Env) -> Array:
        return look.where(env, node.ins[0], env[x], env[x] > 0)

    if origin.phase != "backward":

        def clipped(env: Env) -> Array:
            return look.rebound(env, [node.ins[0]], [jnp.maximum(env[x], 0)])

        def mirrored(env: Env) -> Array:
            return look.rebound(env, [node.ins[0]], [jnp.abs(env[x])])

        # What rounding put below 0 may as well have been that much above it: where that shows, 0 is a choice.
        bounded = Form(clipped, f"jnp.sqrt(jnp.maximum({{{x}}}, 0.0))", other=mirrored)
        yield look.found(bounded, "bound", code)
    # At a bound the slope of the root is infinite.
    text = _where(x, ">", "jnp.sqrt({0})")

    def mirrored_with_slope(env: Env) -> Array:
        return with_slope(look.where(env, node.ins[0], jnp.abs(env[x]), env[x] != 0), env[x], env[x] > 0)

    yield look.found(Form(value, text, other=mirrored_with_slope), "bound", code)


def variance_by_difference(look: Look) -> Iterator[Found]:
    """E[x * x] - E[x] * E[x]."""
    squares, mean = look.node.ins
    look.begin()
    upper = _mean_of_squares(look, squares)
    square = look.squared(mean)
    if upper is None or square is None:
        return
    x, axes, factor = upper
    inner, scale = look.scaled(square)
    summed = look.summed(inner)
    if summed is None or not look.is_same(summed[0], x) or not math.isclose(scale, factor, rel_tol=1e-5):
        return
    name = look.leaf(x)

    kept = look.keeps(squares, x, axes)

    def value(env: Env) -> Array:
        return jnp.var(env[name], axes, keepdims=kept)

    yield look.found(Form(value, f"jnp.var({{{name}}}{axes_text(axes, x.ndim, kept)})"), "same", "ND224")


def _mean_of_squares(look: Look, value: Array) -> tuple[Array, tuple[int, ...], float] | None:
    inner, factor = look.scaled(value)
    found = look.sum_of_squares(inner)
    return (found[0], found[1], factor) if found else None


def schedule_at_zero(look: Look) -> Iterator[Found]:
    """A negative power of a count that begins at 0."""
    node = look.node
    power = -0.5 if node.name == "rsqrt" else look.constant(node.ins[1]) if node.name == "pow" else None
    if power is None or power >= 0:
        return
    cast = look.graph.maker(node.ins[0])
    while cast is not None and cast.name in ("broadcast_in_dim", "reshape"):
        cast = look.graph.maker(cast.ins[0])
    look.begin()
    if cast is not None and cast.name == "convert_element_type" and jnp.issubdtype(cast.ins[0].dtype, jnp.integer):
        count = cast.ins[0]
        x = look.leaf(count, cast)
        text = f"jnp.maximum({{{x}}}, 1) ** {power:.6g}" if node.name == "pow" else f"jax.lax.rsqrt(jnp.maximum({{{x}}}, 1))"

        def counted(env: Env, first: int = 1) -> Array:
            return look.rebound(env, [count], [jnp.where(env[x] < 1, first, env[x])])

        yield look.found(Form(counted, text, other=lambda env: counted(env, 2)), "bound", "ND283")
        return
    x = look.leaf(node.ins[0], node)
    code = "ND282" if look.origin.phase == "update" else "ND233" if look.sum_of_squares(node.ins[0]) else "ND239"
    if _has_lost_its_epsilon(look, node.ins[0]):
        code = "ND248"

    def value(env: Env, fill: float = 0.0) -> Array:
        return look.where(env, node.ins[0], env[x], env[x] > 0, fill)

    shown = "jax.lax.rsqrt({0})" if node.name == "rsqrt" else f"{{0}} ** {power:.6g}"
    yield look.found(Form(value, _where(x, ">", shown), other=lambda env: value(env, 1.0)), "bound", code)


def _has_lost_its_epsilon(look: Look, value: Array) -> bool:
    """Whether a 0 was added to a value of half precision: what was written is smaller than that has."""
    node = look.op(value, "add")
    return node is not None and jnp.dtype(node.outs[0].dtype).itemsize == 2 and any(look.constant(x) == 0 for x in node.ins)


def negative_base(look: Look) -> Iterator[Found]:
    """A fractional power of a negative number: the power of its size, with its sign."""
    node = look.node
    given = look.origin.operands[0].value if look.origin.operands else None
    power = look.constant(node.ins[1])
    if node not in look.anchors or power is None or not isinstance(given, int | float) or given >= 0:
        return
    look.begin()
    x = look.leaf(node.ins[0], node)

    def value(env: Env, sign: float = -1.0) -> Array:
        below = env[x] < 0
        size = look.rebound(env, [node.ins[0]], [jnp.where(below, -env[x], env[x])])
        return jnp.where(below, sign * size, size)

    text = f"jnp.sign({{{x}}}) * jnp.abs({{{x}}}) ** {power:.6g}"
    if abs(3 * power - 1) < 1e-6:
        text = f"jnp.cbrt({{{x}}})"
    yield look.found(Form(value, text, other=lambda env: value(env, 0.0)), "bound", "ND228")


PATTERNS: Patterns = {
    "sub": (variance_by_difference,),
    "sqrt": (below_zero, at_zero),
    "pow": (schedule_at_zero, at_zero, negative_base),
    "rsqrt": (schedule_at_zero,),
    "cbrt": (at_zero,),
}
