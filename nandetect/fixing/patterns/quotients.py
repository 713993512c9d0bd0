"""Quotients: softmaxes without a shift, divisors that are 0, and what was meant by them."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import Env, Form, Found, axes_text, axis_of
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.patterns import divisors, logs

SUMS = ("reduce_sum", "dot_general", "scatter-add", "add_any", "cumsum", "psum", "psum_invariant")


def overflowing(look: Look) -> Iterator[Found]:
    """Exponentials over exponentials: softmax, sigmoid, tanh, and all that is a quotient of sums of them."""
    split = look.quotient(look.node)
    if split is None:
        return
    above, below = split
    look.begin()
    x, sigmoid = look.exponent(above) if above is not None else None, look.below_sigmoid(below)
    if sigmoid is not None and x is None:
        yield _times_sigmoid(look, above, *sigmoid)
        return
    if above is None:
        return
    if x is not None and (same := look.grown(below)) is not None and look.is_same(x, same):
        name = look.leaf(x)
        yield look.found(Form(lambda env: jax.nn.sigmoid(env[name]), f"jax.nn.sigmoid({{{name}}})"), code="ND242")
        return
    found = look.over_its_sum(above, below)
    if found is None:
        if (ratio := _of_exponentials(look, above, below)) is not None:
            yield look.found(ratio, code="ND258")
            return
        yield from _shifted(look, above, below)
        return
    x, axes = found
    logits = look.unshifted(x)
    name, axis = look.leaf(logits), axis_of(axes)
    if look.is_same(logits, x):
        form = Form(lambda env: jax.nn.softmax(env[name], axis), f"jax.nn.softmax({{{name}}}{axes_text(axes, logits.ndim)})")
        yield look.found(form, code="ND244")
    else:
        yield _masked_softmax(look, name, axes, logits.ndim)


def _of_exponentials(look: Look, above: Array, below: Array) -> Form | None:
    """exp(x) / exp(y), also where either is a product of many."""
    if not all(look.op(value, "exp", "reduce_prod") for value in (above, below)):
        return None
    upper, lower = logs.log_of(look, above), logs.log_of(look, below)
    if upper is None or lower is None:
        return None
    less = f"({lower.text})" if " " in lower.text else lower.text
    return Form(lambda env: jnp.exp(upper.value(env) - lower.value(env)), f"jnp.exp({upper.text} - {less})")


def _times_sigmoid(look: Look, above: Array | None, exponent: Array, sign: int) -> Found:
    """a / (1 + exp(-x)), or the same of -x."""
    a = look.leaf(above, look.node) if above is not None else None
    x = look.leaf(exponent)
    times = f"{{{a}}} * " if a is not None else ""
    text = f"{times}jax.nn.sigmoid({'-' if sign < 0 else ''}{{{x}}})"
    return look.found(Form(lambda env: (1 if a is None else env[a]) * jax.nn.sigmoid(sign * env[x]), text), code="ND242")


def _masked_softmax(look: Look, name: str, axes: tuple[int, ...], ndim: int) -> Found:
    def value(env: Env) -> Array:
        x = env[name]
        alive = jnp.isfinite(jnp.max(x, axes, keepdims=True))
        return jnp.where(alive, jax.nn.softmax(jnp.maximum(x, jnp.finfo(x.dtype).min), axes), 0.0)

    text = (
        f"jnp.where(jnp.isfinite({{{name}}}.max({_axis(axes, ndim)}, keepdims=True)), "
        f"jax.nn.softmax(jnp.maximum({{{name}}}, jnp.finfo({{{name}}}.dtype).min){axes_text(axes, ndim)}), 0.0)"
    )
    return look.found(Form(value, text), "guard", "ND261")


def _axis(axes: tuple[int, ...], ndim: int) -> str:
    return "-1" if axes == (ndim - 1,) else str(axis_of(axes))


def _shifted(look: Look, above: Array, below: Array) -> Iterator[Found]:
    """A quotient in which the same exponential stands above and below: the exponent less its maximum gives the same quotient."""
    upper = {node.number: node for node in look.graph.upstream(above, (), most=25) if node.name == "exp"}
    for node in look.graph.upstream(below, (), most=25):
        if node.number not in upper:
            continue
        if look.is_same(look.unshifted(node.ins[0]), node.ins[0]):
            yield _shifted_by_maximum(look, node)
            return


def _shifted_by_maximum(look: Look, node: Node) -> Found:
    """The quotient with the exponent of one operation less its maximum."""
    x = node.ins[0]
    readers = [reader for out in node.outs for reader in look.graph.readers(out)]
    axes = next((tuple(reader.params["axes"]) for reader in readers if reader.name == "reduce_sum"), None)
    look.begin()
    name = look.leaf(x, node)
    shown = "" if axes is None else f"{_axis(axes, x.ndim)}, "

    def value(env: Env) -> Array:
        z = env[name]
        return look.rebound(env, [node.outs[0]], [jnp.exp(z - jax.lax.stop_gradient(jnp.max(z, axes, keepdims=True)))])

    shift = f"{{{name}}}.max({shown}keepdims=True)" if x.ndim else f"{{{name}}}"
    edits = {name: f"{{{name}}} - {shift}"}
    return look.found(Form(value, f"jnp.exp({{{name}}} - {shift})"), code="ND244", at_anchor=node, edits=edits)


def zero_divisor(look: Look) -> Iterator[Found]:
    """A quotient whose divisor is 0 at the fault: what it is 0 of says which number is meant there."""
    split = look.quotient(look.node)
    if split is None or (look.node.name == "mul" and split[0] is None):
        return
    above, below = split
    look.begin()
    if (power := _decay(look, below)) is not None:
        yield _one_step_later(look, power)
        return
    if above is not None and next(divisors.odds(look), None) is not None:
        return
    code, is_zero_over_zero = divisors.kind_of(look, above, below) or _meaning(look, above, below)
    over = 1.0 if code == "ND285" else 0.0
    y = look.leaf(below, look.node)
    if above is None:

        def reciprocal(env: Env, fill: float = 0.0) -> Array:
            return look.where(env, below, env[y], env[y] != 0, fill)

        text = f"jnp.where({{{y}}} != 0, 1 / jnp.where({{{y}}} != 0, {{{y}}}, 1), 0)"
        yield look.found(Form(reciprocal, text, other=lambda env: reciprocal(env, 1.0)), "bound", code)
        return
    x = look.leaf(above, look.node)

    def quotient(env: Env, instead: float = 1.0) -> Array:
        return env[x] / jnp.where(env[y] != 0, env[y], instead)

    def chosen(env: Env, fill: float = over) -> Array:
        return jnp.where(env[y] != 0, quotient(env), fill)

    if is_zero_over_zero:
        form = Form(quotient, f"{{{x}}} / jnp.where({{{y}}} != 0, {{{y}}}, 1)", other=lambda env: quotient(env, 2.0))
    else:
        text = f"jnp.where({{{y}}} != 0, {{{x}}} / jnp.where({{{y}}} != 0, {{{y}}}, 1), {over:g})"
        # A setting divides everything: the same number in all places may not show, another quotient does.
        other = (lambda env: quotient(env)) if code == "ND286" else (lambda env: chosen(env, 1.0 - over))
        form = Form(chosen, text, other=other)
    yield look.found(form, "bound", code)


def _meaning(look: Look, above: Array | None, below: Array) -> tuple[str, bool]:
    """The hazard of a divisor that is 0, and whether its dividend is 0 with it."""
    root = look.op(look.without_zeros(below), "sqrt")
    inner = root.ins[0] if root else None
    updates = look.origin.phase == "update"
    if inner is not None:
        if variance_of(look, inner) is not None:
            return "ND234", True
        if look.sum_of_squares(inner) is not None:
            return ("ND282" if updates else "ND233"), True
        if updates:
            return "ND282", True
    if above is not None and _is_reduced(look, below):
        if _same_sum(look, above, below):
            return "ND240", True
        if _is_reduced(look, above) and _is_count(look, below):
            return "ND232", True
    return "ND239", False


def _is_count(look: Look, below: Array) -> bool:
    """Whether a sum is one of truth values, weights that came in, or ones; and not of products."""
    node = look.op(look.without_zeros(_before_cast(look, below)), *SUMS)
    if node is None:
        return False
    terms = node.ins[-1] if node.name == "scatter-add" else node.ins[0]
    term = look.graph.maker(look.graph.moved(terms))
    return node.name != "dot_general" and (term is None or term.name not in ("mul", "square", "integer_pow", "exp", "abs"))


def _same_sum(look: Look, above: Array, below: Array) -> bool:
    """Whether a value is divided by its own sum."""
    summed = look.summed(look.without_zeros(below))
    return summed is not None and look.is_same(summed[0], above)


def _before_cast(look: Look, value: Array) -> Array:
    """A sum of integers or truth values before it was made a floating number."""
    cast = look.op(value, "convert_element_type")
    return cast.ins[0] if cast is not None else value


def _is_reduced(look: Look, value: Array) -> bool:
    inner, _ = look.scaled(_before_cast(look, value))
    return look.op(look.without_zeros(inner), *SUMS) is not None


def _decay(look: Look, below: Array) -> Node | None:
    """The power of a bias correction, 1 - b ** t."""
    less = look.one_minus(below)
    node = look.op(less, "pow") if less is not None else None
    return node if node is not None and look.constant(node.ins[0]) is not None else None


def _one_step_later(look: Look, power: Node) -> Found:
    t = look.leaf(power.ins[1], power)
    base = look.constant(power.ins[0])

    def value(env: Env) -> Array:
        return look.rebound(env, [power.ins[1]], [env[t] + 1])

    form = Form(value, f"{base:.6g} ** ({{{t}}} + 1)")
    return look.found(form, "shift", "ND281", at_anchor=power, edits={t: f"{{{t}}} + 1"})


def variance_of(look: Look, value: Array) -> tuple[Array, Node] | None:
    """The x of a variance, by the mean of squared deviations, and what subtracts its mean."""
    inner, _ = look.scaled(look.without_zeros(value))
    found = look.summed(inner)
    square = look.squared(found[0]) if found else None
    deviation = look.op(square, "sub") if square is not None else None
    if deviation is None or not is_mean_of(look, deviation.ins[1], deviation.ins[0]):
        return None
    return deviation.ins[0], deviation


def is_mean_of(look: Look, value: Array, of: Array) -> bool:
    """Whether a value is the mean of another along some axes."""
    inner, factor = look.scaled(value)
    found = look.summed(inner)
    return found is not None and factor != 1 and look.is_same(found[0], of)


PATTERNS: Patterns = {
    "div": (overflowing, zero_divisor),
    "integer_pow": (overflowing, zero_divisor),
    "mul": (overflowing,),
}
