"""The logarithm of a value, told from how the value was made."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import Form, Found, axes_text, axis_of
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.patterns.picks import of_picked, picks, whole
from nandetect.fixing.patterns.special import (
    are_opposite,
    cosh,
    difference_of_sigmoids,
    gamma,
    inverse_softplus,
    log_two_cosh,
    normal,
    normal_interval,
    one_less_exp,
    one_less_tanh_squared,
)

# The logarithm of a part is as good as that of the whole, where neither leaves the range.
SPLIT = ("ND211", "ND218", "ND219")


def of_log(look: Look) -> Iterator[Found]:
    """A stable logarithm in place of `log(value)`."""
    value = look.node.ins[0]
    look.begin()
    if (form := log_of(look, value)) is not None:
        yield look.found(form)
    look.begin()
    if (form := _of_product(look, value)) is not None:
        yield look.found(form)


def of_log1p(look: Look) -> Iterator[Found]:
    """A stable logarithm in place of `log1p(value)`."""
    value = look.node.ins[0]
    look.begin()
    x = look.exponent(value)
    if x is not None:
        yield look.found(_softplus(look, x))
    less = look.negated(value)
    if less is None:
        for a, b in look.two(value, "mul"):
            negative = look.negated(a)
            if negative is not None and look.is_same(negative, b) and (t := look.op(b, "tanh")) is not None:
                yield look.found(one_less_tanh_squared(look, t.ins[0]))
                return
    if less is not None and (form := one_less_exp(look, less) or _one_less(look, less)) is not None:
        yield look.found(form)


def log_of(look: Look, value: Array, depth: int = 0) -> Form | None:
    """How to compute the logarithm of a value without the value; None where no better way is known than to take it."""
    if depth > 8:
        return None
    value = look.without_zeros(value)
    for rule in (
        _softmax,
        _sigmoid,
        _from_one,
        _exponential,
        _sums_of_exps,
        cosh,
        normal,
        gamma,
        _product_of_many,
        _whole,
        _picked,
        _scaled,
    ):
        if (form := rule(look, value, depth)) is not None:
            return form
    return None


def plain(look: Look, value: Array) -> Form:
    """The logarithm as it is."""
    x = look.leaf(value)
    return Form(lambda env: jnp.log(env[x]), f"jnp.log({{{x}}})")


def _softmax(look: Look, value: Array, depth: int) -> Form | None:
    found = look.softmax(value)
    if found is None:
        return None
    x, axes = look.leaf(found[0]), found[1]
    axis = axis_of(axes)
    return Form(
        lambda env: jax.nn.log_softmax(env[x], axis),
        f"jax.nn.log_softmax({{{x}}}{axes_text(axes, found[0].ndim)})",
        "ND201",
    )


def _sigmoid(look: Look, value: Array, depth: int) -> Form | None:
    found = look.sigmoid(value)
    if found is None:
        return None
    x, sign = look.leaf(found[0]), found[1]
    return Form(lambda env: jax.nn.log_sigmoid(sign * env[x]), f"jax.nn.log_sigmoid({'-' if sign < 0 else ''}{{{x}}})", "ND204")


def _from_one(look: Look, value: Array, depth: int) -> Form | None:
    """1 - y, and s - t of two sigmoids."""
    less = look.one_minus(value)
    if less is not None:
        return _one_less(look, less, depth)
    node = look.op(value, "sub")
    if node is not None:
        if (form := difference_of_sigmoids(look, *node.ins)) is not None:
            return form
        if look.constant(node.ins[1]) == 1 and (exponent := look.exponent(node.ins[0])) is not None:
            return inverse_softplus(look, exponent)
        a, b = node.ins
        return normal_interval(look, a, b) or _of_difference(look, a, b, depth)
    grown = look.op(value, "expm1")
    return inverse_softplus(look, grown.ins[0]) if grown is not None else None


def _of_difference(look: Look, one: Array, other: Array, depth: int) -> Form | None:
    """log(u - v), of two whose logarithms have stable forms."""
    upper, lower = log_of(look, one, depth + 1), log_of(look, other, depth + 1)
    if upper is None or lower is None:
        return None
    text = f"{upper.text} + jnp.log(-jnp.expm1({lower.text} - {_in_brackets(upper.text)}))"
    return Form(lambda env: upper.value(env) + jnp.log(-jnp.expm1(lower.value(env) - upper.value(env))), text, "ND296")


def _one_less(look: Look, less: Array, depth: int = 0) -> Form | None:
    """log(1 - less)."""
    if depth > 8:
        return None
    if (taken := picks(look, less)) and (of := _one_less(look, whole(taken), depth + 1)) is not None:
        return of_picked(look, taken, of)
    found = look.sigmoid(less)
    if found is not None:
        x, sign = look.leaf(found[0]), found[1]
        return Form(lambda env: jax.nn.log_sigmoid(-sign * env[x]), f"jax.nn.log_sigmoid({'-' if sign > 0 else ''}{{{x}}})", "ND203")
    square = look.squared(less)
    if square is not None and (t := look.op(square, "tanh")) is not None:
        return one_less_tanh_squared(look, t.ins[0])
    if (t := look.op(less, "tanh")) is not None:
        x = look.leaf(t.ins[0])
        return Form(lambda env: jnp.log(2.0) - jax.nn.softplus(2 * env[x]), f"jnp.log(2.0) - jax.nn.softplus(2 * {{{x}}})", "ND215")
    exponent = look.exponent(less)
    if exponent is not None:
        x = look.leaf(exponent)
        return Form(lambda env: jnp.log(-jnp.expm1(env[x])), f"jnp.log(-jnp.expm1({{{x}}}))", "ND216")
    tail = look.op(less, "erf")
    if tail is not None:
        x = look.leaf(tail.ins[0])
        return Form(lambda env: jnp.log(jax.scipy.special.erfc(env[x])), f"jnp.log(jax.scipy.special.erfc({{{x}}}))", "ND208")
    of = log_of(look, less, depth + 1)
    if of is None or of.code in SPLIT:
        return None
    return Form(lambda env: jnp.log(-jnp.expm1(of.value(env))), f"jnp.log(-jnp.expm1({of.text}))", "ND216")


def _exponential(look: Look, value: Array, depth: int) -> Form | None:
    exponent = look.exponent(value)
    if exponent is None:
        return None
    x = look.leaf(exponent)
    return Form(lambda env: env[x], f"{{{x}}}", "ND217")


def _softplus(look: Look, value: Array) -> Form:
    x = look.leaf(value)
    return Form(lambda env: jax.nn.softplus(env[x]), f"jax.nn.softplus({{{x}}})", "ND243")


def _sums_of_exps(look: Look, value: Array, depth: int) -> Form | None:
    """1 + exp(x), exp(x) + exp(y), sum(exp(x)), sum(w * exp(x))."""
    if (x := look.grown(value)) is not None:
        return _softplus(look, x)
    node = look.op(value, "add")
    if node is not None:
        return _of_two_exps(look, node.ins[0], node.ins[1])
    summed = look.summed(value)
    if summed is None:
        return None
    inner, axes = summed
    axis, kept = axis_of(axes), look.keeps(value, inner, axes)
    exponent = look.exponent(inner)
    if exponent is not None:
        if look.unshifted(exponent) is not exponent:
            return None
        x = look.leaf(exponent)
        text = f"jax.nn.logsumexp({{{x}}}{axes_text(axes, exponent.ndim, kept)})"
        return Form(lambda env: jax.nn.logsumexp(env[x], axis, keepdims=kept), text, "ND207")
    for weight, grown in look.two(inner, "mul"):
        if (of := log_of(look, grown, depth + 1)) is not None and not look.has_leaf(weight):
            return _weighed(look, weight, of, axes, kept)
    if (of := log_of(look, inner, depth + 1)) is not None:
        text = f"jax.nn.logsumexp({of.text}{axes_text(axes, inner.ndim, kept)})"
        return Form(lambda env: jax.nn.logsumexp(of.value(env), axis, keepdims=kept), text, _of_sum(of))
    return None


def _of_sum(of: Form) -> str:
    """The hazard of a sum whose terms have a stable logarithm: of exponentials it is another than that of one."""
    return of.code if of.code != "ND217" else "ND207"


def _of_two_exps(look: Look, one: Array, other: Array) -> Form | None:
    """log(exp(x) + exp(y))."""
    x, y = look.exponent(one), look.exponent(other)
    if x is None or y is None:
        return None
    if are_opposite(look, x, y):
        return log_two_cosh(look, x)
    a, b = look.leaf(x), look.leaf(y)
    return Form(lambda env: jnp.logaddexp(env[a], env[b]), f"jnp.logaddexp({{{a}}}, {{{b}}})", "ND207")


def _weighed(look: Look, weight: Array, of: Form, axes: tuple[int, ...], kept: bool) -> Form:
    """The logarithm of a weighed sum of what has a stable logarithm."""
    w, axis = look.leaf(weight), axis_of(axes)
    text = f"jax.nn.logsumexp({of.text}{axes_text(axes, weight.ndim, kept)}, b={{{w}}})"
    return Form(lambda env: jax.nn.logsumexp(of.value(env), axis, b=env[w], keepdims=kept), text, _of_sum(of))


def _product_of_many(look: Look, value: Array, depth: int) -> Form | None:
    node = look.op(value, "reduce_prod", "cumprod")
    if node is None:
        return None
    of = log_of(look, node.ins[0], depth + 1) or plain(look, node.ins[0])
    if node.name == "cumprod":
        axis, reverse = node.params["axis"], node.params["reverse"]
        text = f"jnp.cumsum({of.text}, axis={axis})" if not reverse else f"jax.lax.cumsum({of.text}, axis={axis}, reverse=True)"
        return Form(lambda env: jax.lax.cumsum(of.value(env), axis=axis, reverse=reverse), text, of.code or "ND211")
    axes = tuple(node.params["axes"])
    return Form(lambda env: jnp.sum(of.value(env), axes), f"jnp.sum({of.text}{axes_text(axes, node.ins[0].ndim)})", of.code or "ND211")


def _whole(look: Look, value: Array, depth: int) -> Form | None:
    """Powers and roots: n log(x)."""
    node = look.op(value, "integer_pow", "square", "sqrt", "rsqrt", "pow", "cbrt")
    base, power = None, 1.0
    if node is not None:
        base = node.ins[0]
        by_name = {"square": 2.0, "sqrt": 0.5, "rsqrt": -0.5, "cbrt": 1 / 3}
        exponent = by_name.get(node.name)
        if node.name == "integer_pow":
            exponent = float(node.params["y"])
        if node.name == "pow":
            exponent = look.constant(node.ins[1])
        if exponent is None:
            return _to_a_power(look, node, depth)
        power = exponent
    elif (base := look.squared(value)) is not None:
        power = 2.0
    else:
        return None
    even = power % 2 == 0
    of = log_of(look, base, depth + 1)
    if of is None:
        x = look.leaf(base)
        of = Form(
            lambda env: jnp.log(jnp.abs(env[x]) if even else env[x]), f"jnp.log({f'jnp.abs({{{x}}})' if even else f'{{{x}}}'})", "ND218"
        )
    shown = f"{power:.6g}"
    return Form(lambda env: power * of.value(env), f"{shown} * {_in_brackets(of.text)}", of.code)


def _to_a_power(look: Look, node: Node, depth: int) -> Form:
    """The logarithm of x to a power that is computed."""
    less = look.one_minus(node.ins[0])
    of = log_of(look, node.ins[0], depth + 1) if less is None else _one_less_as_it_is(look, less)
    of = of or plain(look, node.ins[0])
    power = look.leaf(node.ins[1], node)
    return Form(lambda env: env[power] * of.value(env), f"{{{power}}} * {_in_brackets(of.text)}", of.code or "ND218")


def _one_less_as_it_is(look: Look, less: Array) -> Form:
    x = look.leaf(less)
    return Form(lambda env: jnp.log1p(-env[x]), f"jnp.log1p(-{{{x}}})", "ND216")


def _picked(look: Look, value: Array, depth: int) -> Form | None:
    """An element of what has a stable logarithm: the logarithm is taken before the element."""
    taken = picks(look, value)
    of = log_of(look, whole(taken), depth + 1) if taken else None
    return of_picked(look, taken, of) if of is not None else None


def _scaled(look: Look, value: Array, depth: int) -> Form | None:
    """A constant factor, and what is added to the logarithm of either side of a product or quotient."""
    inner, factor = look.scaled(value)
    if factor > 0 and not look.is_same(inner, value):
        of = log_of(look, inner, depth + 1)
        if of is None:
            return None
        number, sign = math.log(factor), "+" if factor > 1 else "-"
        near = f"jnp.log({factor:.7g})" if factor > 1 else f"jnp.log({1 / factor:.7g})"
        return Form(lambda env: of.value(env) + number, f"{of.text} {sign} {near}", of.code)
    node = look.op(value, "mul", "div")
    if node is None:
        return None
    one, other = (log_of(look, x, depth + 1) for x in node.ins)
    if one is None and other is None:
        return None
    a, b = one or plain(look, node.ins[0]), other or plain(look, node.ins[1])
    is_softmax = node.name == "div" and (a.code, b.code) == ("ND217", "ND207")
    return _joined(node, a, b, "ND201" if is_softmax else a.code or b.code)


def _of_product(look: Look, value: Array) -> Form | None:
    """log(x * y) and log(x / y), where the product or the quotient leaves the range and its parts do not."""
    node = look.op(value, "mul", "div")
    if node is None or any(look.constant(x) is not None for x in node.ins):
        return None
    return _joined(node, plain(look, node.ins[0]), plain(look, node.ins[1]), "ND211" if node.name == "mul" else "ND219")


def _joined(node: Node, one: Form, other: Form, code: str) -> Form:
    """The logarithm of a product or a quotient, from those of its parts."""
    sign = 1.0 if node.name == "mul" else -1.0
    text = f"{one.text} {'+' if sign > 0 else '-'} {_in_brackets(other.text)}"
    return Form(lambda env: one.value(env) + sign * other.value(env), text, code)


def _in_brackets(text: str) -> str:
    return f"({text})" if " " in text.replace(", ", ",") else text


PATTERNS: Patterns = {"log": (of_log,), "log1p": (of_log1p,)}
