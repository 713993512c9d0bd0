"""Logarithms of functions that have a stable one of their own: cosh, Bessel and gamma, the normal distribution, tanh, 1 - exp."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import PICKED, Env, Form
from nandetect.fixing.look import Look


def log_two_cosh(look: Look, value: Array, is_half: bool = False) -> Form:
    """log(exp(x) + exp(-x)), or of half of it."""
    x = look.leaf(value)
    less = " - jnp.log(2.0)" if is_half else ""
    return Form(
        lambda env: jnp.abs(env[x]) + jax.nn.softplus(-2 * jnp.abs(env[x])) - (math.log(2.0) if is_half else 0.0),
        f"jnp.abs({{{x}}}) + jax.nn.softplus(-2 * jnp.abs({{{x}}})){less}",
        "ND245",
    )


def are_opposite(look: Look, one: Array, other: Array) -> bool:
    """Whether one value is the negative of the other, as it is written."""
    negative = look.negated(other)
    return negative is not None and look.is_same(negative, one)


def cosh(look: Look, value: Array, depth: int) -> Form | None:
    node = look.op(value, "cosh")
    if node is not None:
        return log_two_cosh(look, node.ins[0], is_half=True)
    inner, factor = look.scaled(value)
    if factor == 0.5:
        for a, b in look.two(inner, "add")[:1]:
            x, y = look.exponent(a), look.exponent(b)
            if x is not None and y is not None and are_opposite(look, x, y):
                return log_two_cosh(look, x, is_half=True)
    scaled = next((b for a, b in look.two(value, "mul") if look.exponent(a) is not None and look.op(b, "bessel_i0e")), None)
    node = look.op(scaled, "bessel_i0e") if scaled is not None else None
    if node is not None:
        x = look.leaf(node.ins[0])
        return Form(
            lambda env: jnp.log(jax.scipy.special.i0e(env[x])) + jnp.abs(env[x]),
            f"jnp.log(jax.scipy.special.i0e({{{x}}})) + jnp.abs({{{x}}})",
            "ND246",
        )
    return None


def gamma(look: Look, value: Array, depth: int) -> Form | None:
    """The gamma function as JAX has it: a sign times exp(lgamma(x))."""
    exponents = [look.exponent(grown) for _, grown in look.two(value, "mul")]
    made = next((node for x in exponents if x is not None and (node := look.op(x, "lgamma")) is not None), None)
    if made is None:
        return None
    x = look.leaf(made.ins[0])
    return Form(lambda env: jax.scipy.special.gammaln(env[x]), f"jax.scipy.special.gammaln({{{x}}})", "ND220")


def normal(look: Look, value: Array, depth: int) -> Form | None:
    """The normal distribution function by erfc: half of erfc(-x / sqrt(2))."""
    inner, factor = look.scaled(value)
    node = look.op(inner, "erfc")
    if node is None:
        x = _of_ndtr(look, inner, factor)
        if x is None:
            return None
        name = look.leaf(x)
        return Form(lambda env: jax.scipy.stats.norm.logcdf(env[name]), f"jax.scipy.stats.norm.logcdf({{{name}}})", "ND208")
    argument, scale = look.scaled(node.ins[0])
    x = look.leaf(argument)
    times, rest = -scale * math.sqrt(2.0), math.log(2 * abs(factor))
    if abs(times - 1) < 1e-6:
        times, shown = 1.0, f"{{{x}}}"
    elif abs(times + 1) < 1e-6:
        times, shown = -1.0, f"-{{{x}}}"
    else:
        shown = f"{times:.7g} * {{{x}}}"
    more = f" + {rest:.7g}" if abs(rest) > 1e-12 else ""
    return Form(lambda env: jax.scipy.stats.norm.logcdf(times * env[x]) + rest, f"jax.scipy.stats.norm.logcdf({shown}){more}", "ND208")


def _of_ndtr(look: Look, inner: Array, factor: float) -> Array | None:
    """The operand of JAX's own ndtr, which chooses between forms by the size of its operand."""
    node = look.op(inner, "select_n")
    if node is None or factor not in (0.5, 1.0) or not all(_by_erf(look, case) for case in node.ins[1:]):
        return None
    return _standard(look, node.ins[-1])


def normal_interval(look: Look, one: Array, other: Array) -> Form | None:
    """log(ndtr(x) - ndtr(y)), from the tail in which both are small."""
    upper, lower = (_of_ndtr(look, *look.scaled(value)) for value in (one, other))
    if upper is None or lower is None:
        return None
    x, y = look.leaf(upper), look.leaf(lower)

    def value(env: Env) -> Array:
        ends = jnp.broadcast_arrays(env[x], env[y])
        is_right = ends[1] > 0
        high, low = jnp.where(is_right, -ends[1], ends[0]), jnp.where(is_right, -ends[0], ends[1])
        above, below = jax.scipy.stats.norm.logcdf(high), jax.scipy.stats.norm.logcdf(low)
        return above + jnp.log(-jnp.expm1(below - above))

    return Form(value, PICKED, "ND296")


def _by_erf(look: Look, value: Array) -> bool:
    return any(node.name in ("erf", "erfc") for node in look.graph.upstream(value, (), most=12))


def _standard(look: Look, value: Array) -> Array | None:
    """The operand of JAX's ndtr."""
    for node in reversed(look.graph.upstream(value, (), most=40)):
        if node.name == "mul" and abs((look.constant(node.ins[1]) or look.constant(node.ins[0]) or 0) - math.sqrt(0.5)) < 1e-6:
            return node.ins[0] if look.constant(node.ins[0]) is None else node.ins[1]
    return None


def inverse_softplus(look: Look, exponent: Array) -> Form:
    """log(exp(x) - 1)."""
    x = look.leaf(exponent)
    return Form(lambda env: env[x] + jnp.log(-jnp.expm1(-env[x])), f"{{{x}}} + jnp.log(-jnp.expm1(-{{{x}}}))", "ND230")


def one_less_tanh_squared(look: Look, value: Array) -> Form:
    """log(1 - tanh(x) ** 2)."""
    x = look.leaf(value)
    return Form(
        lambda env: 2 * (jnp.log(2.0) - env[x] - jax.nn.softplus(-2 * env[x])),
        f"2 * (jnp.log(2.0) - {{{x}}} - jax.nn.softplus(-2 * {{{x}}}))",
        "ND206",
    )


def difference_of_sigmoids(look: Look, one: Array, other: Array) -> Form | None:
    """log(sigmoid(x) - sigmoid(y))."""
    upper, lower = look.sigmoid(one), look.sigmoid(other)
    if upper is None or lower is None:
        return None
    x, y, s, t = look.leaf(upper[0]), look.leaf(lower[0]), upper[1], lower[1]
    sx, sy = "-" * (s < 0), "-" * (t < 0)
    return Form(
        lambda env: jax.nn.log_sigmoid(s * env[x]) + jax.nn.log_sigmoid(-t * env[y]) + jnp.log(-jnp.expm1(t * env[y] - s * env[x])),
        f"jax.nn.log_sigmoid({sx}{{{x}}}) + jax.nn.log_sigmoid({'' if t < 0 else '-'}{{{y}}}) + "
        f"jnp.log(-jnp.expm1({sy}{{{y}}} - {sx}{{{x}}}))",
        "ND205",
    )


def one_less_exp(look: Look, less: Array) -> Form | None:
    """log1p(-exp(x)): its digits are right below -log(2), and those of log(-expm1(x)) above."""
    exponent = look.exponent(less)
    if exponent is None:
        return None
    x = look.leaf(exponent)
    # JAX has it since 0.7.1.
    log1mexp = getattr(jax.nn, "log1mexp", None)
    if log1mexp is not None:
        return Form(lambda env: log1mexp(-env[x]), f"jax.nn.log1mexp(-{{{x}}})", "ND216")
    n = f"{{{x}}}"
    text = f"jnp.where({n} > -0.69, jnp.log(-jnp.expm1({n})), jnp.log1p(-jnp.exp(jnp.minimum({n}, -0.69))))"
    return Form(lambda env: _by_halves(env[x]), text, "ND216")


def _by_halves(x: Array) -> Array:
    return jnp.where(x > -0.69, jnp.log(-jnp.expm1(x)), jnp.log1p(-jnp.exp(jnp.minimum(x, -0.69))))
