"""Quotients that are 0 / 0 at 0 and have a limit there: sin(x) / x, expm1(x) / x, (1 - cos(x)) / x ** 2."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import Env, Form, Found
from nandetect.fixing.look import Look, Patterns

# The first two coefficients at 0: f(x) is about a * x + b * x ** 2.
SERIES = {
    "sin": (1.0, 0.0),
    "tan": (1.0, 0.0),
    "sinh": (1.0, 0.0),
    "tanh": (1.0, 0.0),
    "asin": (1.0, 0.0),
    "atan": (1.0, 0.0),
    "asinh": (1.0, 0.0),
    "expm1": (1.0, 0.5),
    "log1p": (1.0, -0.5),
    "1 - cos": (0.0, 0.5),
}
SPELLED = {"asin": "arcsin", "atan": "arctan", "asinh": "arcsinh"}


def limit(look: Look) -> Iterator[Found]:
    """f(x) / x, f(x) / x ** 2 or x / f(x), of an f that is 0 at 0: where x is 0 the limit stands in."""
    split = look.quotient(look.node)
    if split is None or split[0] is None:
        return
    for (above, below), is_inverse in ((split, False), (split[::-1], True)):
        assert above is not None and below is not None
        known = _series(look, above)
        if known is None:
            continue
        name, x = known
        square = look.squared(below)
        a, b = SERIES[name]
        if look.is_same(x, below) and (a or not is_inverse):
            value, slope = (1 / a, -b / a**2) if is_inverse else (a, b)
            yield _at_its_limit(look, name, x, value, slope, "{1} / {0}" if is_inverse else "{0} / {1}")
        elif square is not None and look.is_same(x, square) and a == 0 and not is_inverse:
            yield _at_its_limit(look, name, x, b, 0.0, "{0} / {1} ** 2")


def _series(look: Look, value: Array) -> tuple[str, Array] | None:
    """The function that a value is, of those that are 0 at 0, and its operand."""
    value = look.graph.moved(value)
    node = look.op(value, *SERIES)
    if node is not None:
        return node.name, node.ins[0]
    less = look.one_minus(value)
    cosine = look.op(less, "cos") if less is not None else None
    if cosine is not None:
        return "1 - cos", cosine.ins[0]
    less_one = look.op(value, "sub")
    if less_one is not None and look.constant(less_one.ins[1]) == 1 and (x := look.exponent(less_one.ins[0])) is not None:
        return "expm1", x
    return None


def _at_its_limit(look: Look, name: str, operand: Array, value: float, slope: float, shape: str) -> Found:
    look.begin()
    x = look.leaf(operand)

    def continued(env: Env) -> Array:
        alive = env[x] != 0
        safe = look.rebound(env, [operand], [jnp.where(alive, env[x], 1)])
        return jnp.where(alive, safe, value + slope * env[x])

    alive = f"{{{x}}} != 0"
    safe = f"jnp.where({alive}, {{{x}}}, 1.0)"
    function = f"1 - jnp.cos({safe})" if name == "1 - cos" else f"jnp.{SPELLED.get(name, name)}({safe})"
    quotient = shape.format(f"({function})" if name == "1 - cos" else function, safe)
    at_zero = f"{value:g}" + (f" {'+' if slope > 0 else '-'} {{{x}}} / {1 / abs(slope):g}" if slope else "")
    return look.found(Form(continued, f"jnp.where({alive}, {quotient}, {at_zero})"), "guard", "ND292")


PATTERNS: Patterns = {"div": (limit,), "mul": (limit,)}
