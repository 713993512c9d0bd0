"""Infinities that were meant: masks of -inf, logarithms of 0 that a 0 is multiplied with, sums of nothing in log space."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import Env, Form, Found, axes_text, axis_of, with_slope
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns
from nandetect.fixing.patterns import logs, lookups


def mask_times_inf(look: Look) -> Iterator[Found]:
    """A weight times an infinity that was written down: the infinity is chosen where the weight is not 0."""
    for weight, number in look.both():
        value = look.constant(number)
        if value is not None and math.isinf(value):
            yield _chosen(look, weight, value)


def _chosen(look: Look, weight: Array, infinity: float) -> Found:
    look.begin()
    w = look.leaf(weight, look.node)
    less = look.one_minus(weight)
    end = "max" if infinity > 0 else "min"

    def value(env: Env) -> Array:
        extreme = getattr(jnp.finfo(env[w].dtype), end)
        return jnp.where(env[w] != 0, extreme, 0).astype(env[w].dtype)

    number = f"jnp.finfo(jnp.{weight.dtype}).{end}"
    text = f"jnp.where({{{w}}} != 0, {number}, 0.0)" if less is None else f"jnp.where({{{look.leaf(less)}}} == 1, 0.0, {number})"
    return look.found(Form(value, text), "bound", "ND262")


def product_with_log(look: Look) -> Iterator[Found]:
    """x * log(y) where both are 0."""
    for weight, other in look.both():
        if look.constant(weight) is None:
            for log in _logs_of(look, other):
                yield from _times_log(look, weight, other, log)


def contracted_with_log(look: Look) -> Iterator[Found]:
    """A sum of x * log(y), as a dot product or an `einsum` writes it, where both are 0."""
    for weight, other in look.both():
        for log in _logs_of(look, other) if look.constant(weight) is None else ():
            if weight.shape == log.ins[0].shape:
                yield _summed_with_log(look, weight, log)


def _summed_with_log(look: Look, weight: Array, log: Node) -> Found:
    look.begin()
    x, y = look.leaf(weight, look.node), look.leaf(log.ins[0], log)

    def value(env: Env) -> Array:
        safe = jnp.where(env[x] != 0, env[y], 0 if log.name == "log1p" else 1)
        return look.guarded(env, {x: weight, y: log.ins[0]}, log, 0, safe)

    def sloped(env: Env) -> Array:
        missing = jnp.sum(with_slope(jnp.zeros_like(env[x]), env[x], env[x] != 0))
        return value(env) + missing

    guarded = f"jnp.where({{{x}}} != 0, {{{y}}}, {'0.0' if log.name == 'log1p' else '1.0'})"
    other = sloped if look.is_same(weight, log.ins[0]) else None
    return look.found(Form(value, guarded, other=other), "guard", "ND209", at_anchor=log, edits={y: guarded})


def _times_log(look: Look, weight: Array, other: Array, log: Node) -> Iterator[Found]:
    look.begin()
    name, harmless = log.name, 0 if log.name == "log1p" else 1
    x, y = look.leaf(weight, look.node), look.leaf(log.ins[0], log)
    inner, factor = look.scaled(other)
    of_itself, alone = look.is_same(weight, log.ins[0]), look.is_same(inner, log.outs[0])
    if alone and factor == 1 and not of_itself and name != "log2":
        # Its slope is 0 / 0 where both are 0: what needs that is not cured by it.
        function, called = (jax.scipy.special.xlogy, "xlogy") if name == "log" else (jax.scipy.special.xlog1py, "xlog1py")
        library = Form(lambda env: function(env[x], env[y]), f"jax.scipy.special.{called}({{{x}}}, {{{y}}})")
        yield look.found(library, "guard", "ND209")

    def value(env: Env) -> Array:
        alive = env[x] != 0
        safe = jnp.where(alive if env[y].ndim >= alive.ndim else jnp.any(alive), env[y], harmless)
        return jnp.where(alive, look.guarded(env, {x: weight, y: log.ins[0]}, log, 0, safe), 0)

    def sloped(env: Env) -> Array:
        return with_slope(value(env), env[x], env[x] != 0)

    # x log x has no slope at 0: the one that it gets is a choice.
    otherwise = sloped if of_itself else None
    if not alone:
        guarded = f"jnp.where({{{x}}} != 0, {{{y}}}, {harmless:.1f})"
        yield look.found(Form(value, guarded, other=otherwise), "guard", "ND209", at_anchor=log, edits={y: guarded})
        return
    times = "" if factor == 1 else f"{factor:.6g} * "
    text = f"{times}jnp.where({{{x}}} != 0, {{{x}}} * jnp.{name}(jnp.where({{{x}}} != 0, {{{y}}}, {harmless:.1f})), 0.0)"
    yield look.found(Form(value, text, other=otherwise), "guard", "ND209")


def product_with_exp(look: Look) -> Iterator[Found]:
    """exp(x) * x where x is -inf."""
    for weight, other in look.both():
        inner, factor = look.scaled(other)
        exponent = look.exponent(weight)
        if exponent is not None and (look.is_same(exponent, other) or look.is_same(exponent, inner)):
            yield _times_exp(look, exponent, factor)


def _times_exp(look: Look, exponent: Array, factor: float) -> Found:
    look.begin()
    z = look.leaf(exponent)

    def value(env: Env) -> Array:
        alive = env[z] > -jnp.inf
        return factor * jnp.where(alive, jnp.exp(env[z]) * jnp.where(alive, env[z], 0), 0)

    times = "" if factor == 1 else f"{factor:.6g} * "
    text = f"{times}jnp.where({{{z}}} > -jnp.inf, jnp.exp({{{z}}}) * jnp.where({{{z}}} > -jnp.inf, {{{z}}}, 0.0), 0.0)"
    return look.found(Form(value, text), "guard", "ND263")


def _logs_of(look: Look, value: Array) -> list[Node]:
    """The logarithms that a value is a sum of."""
    found, waiting = [], [value]
    while waiting and len(found) < 3:
        inner, _ = look.scaled(waiting.pop(0))
        node = look.graph.maker(inner)
        if node is not None and node.name in ("log", "log1p", "log2"):
            found.append(node)
        elif node is not None and node.name in ("add", "sub"):
            waiting += node.ins
    return found


def xlogy_of_probability(look: Look) -> Iterator[Found]:
    """xlogy(t, p) of a p whose logarithm has a stable form: its slope t / p is 0 / 0 where p underflows."""
    node = look.node
    if node.called != "xlogy" or len(node.ins) != 2:
        return
    look.begin()
    form = logs.log_of(look, node.ins[1])
    if form is None:
        return
    t = look.leaf(node.ins[0], node)
    yield look.found(Form(lambda env: env[t] * form.value(env), f"{{{t}}} * {form.text}"), "same", "ND202")


def zero_times_infinite(look: Look) -> Iterator[Found]:
    """A factor that is 0 where the other is infinite, and nothing more is known of either: the product is chosen to be 0 there."""
    node = look.node
    values = [operand.value for operand in look.origin.operands[:2]]
    if node not in look.anchors or len(values) != 2 or any(look.constant(x) is not None for x in node.ins):
        return
    for slot in (0, 1):
        if values[slot] == 0 and is_infinite(values[1 - slot]):
            yield _times_infinite(look, slot)


def _times_infinite(look: Look, slot: int) -> Found:
    node = look.node
    look.begin()
    x, y = look.leaf(node.ins[slot], node), look.leaf(node.ins[1 - slot], node)

    def value(env: Env) -> Array:
        alive = env[x] != 0
        return jnp.where(alive, env[x] * jnp.where(alive, env[y], 0), 0)

    text = f"jnp.where({{{x}}} != 0, {{{x}}} * jnp.where({{{x}}} != 0, {{{y}}}, 0.0), 0.0)"
    return look.found(Form(value, text), "bound", "ND269" if lookups.is_read_from_a_table(look, node.ins[1 - slot]) else "ND267")


def is_infinite(value: object) -> bool:
    """Whether an operand's value is an infinity."""
    return isinstance(value, float) and math.isinf(value)


def less_its_maximum(look: Look) -> Iterator[Found]:
    """x - max(x) where all of x is -inf: the maximum is taken for 0 there."""
    node = look.node
    if node.name != "sub" or not look.is_maximum_of(node.ins[1], node.ins[0]):
        return
    look.begin()
    x, m = look.leaf(node.ins[0], node), look.leaf(node.ins[1], node)
    code = "ND264" if look.origin.phase == "forward" else "ND265"

    def value(env: Env) -> Array:
        return env[x] - jnp.where(jnp.isfinite(env[m]), env[m], 0)

    yield look.found(Form(value, f"{{{x}}} - jnp.where(jnp.isfinite({{{m}}}), {{{m}}}, 0.0)"), "guard", code)


def empty_log_sum_exp(look: Look) -> Iterator[Found]:
    """max(x) + log(sum(exp(x - max(x)))) where all of x is -inf."""
    for a, b in look.both():
        log = look.op(a, "log")
        inside = look.op(log.ins[0], "abs") if log else None
        summed = look.summed(inside.ins[0] if inside else log.ins[0]) if log else None
        exponent = look.exponent(summed[0]) if summed else None
        shift = look.op(exponent, "sub") if exponent is not None else None
        if summed is not None and shift is not None and look.is_maximum_of(b, shift.ins[0]):
            yield _bounded_below(look, shift.ins[0], summed[1])


def _bounded_below(look: Look, terms: Array, axes: tuple[int, ...]) -> Found:
    look.begin()
    x = look.leaf(terms)

    def value(env: Env, times: float = 1.0) -> Array:
        lowest = times * (-1e30 if env[x].dtype.itemsize > 2 else -3e4)
        return jax.nn.logsumexp(jnp.maximum(env[x], jnp.asarray(lowest, env[x].dtype)), axis_of(axes))

    code = "ND264" if look.origin.phase == "forward" else "ND265"
    text = f"jax.nn.logsumexp(jnp.maximum({{{x}}}, -1e30){axes_text(axes, terms.ndim)})"
    return look.found(Form(value, text, other=lambda env: value(env, 0.1)), "bound", code)


def same_infinities(look: Look) -> Iterator[Found]:
    """The difference of two log-probabilities that are both -inf."""
    node = look.node
    values = [operand.value for operand in look.origin.operands[:2]]
    if node not in look.anchors or len(values) != 2 or not all(map(is_infinite, values)):
        return
    if look.is_maximum_of(node.ins[1], node.ins[0]):
        return
    look.begin()
    x, y = look.leaf(node.ins[0], node), look.leaf(node.ins[1], node)

    def value(env: Env, meant: float = 0.0) -> Array:
        both = jnp.isinf(env[x]) & (env[x] == env[y])
        return jnp.where(both, meant, env[x]) - jnp.where(both, 0, env[y])

    text = f"jnp.where({{{x}}} == {{{y}}}, 0.0, {{{x}}} - jnp.where({{{x}}} == {{{y}}}, 0.0, {{{y}}}))"
    code = "ND269" if all(lookups.is_read_from_a_table(look, x) for x in node.ins) else "ND268"
    yield look.found(Form(value, text, other=lambda env: value(env, 1.0)), "bound", code)


def masks_added_up(look: Look) -> Iterator[Found]:
    """A sum of two numbers that are each there to be nothing after a softmax: it leaves the type."""
    node = look.node
    values = [operand.value for operand in look.origin.operands[:2]]
    lowest = float(jnp.finfo(node.ins[0].dtype).min)
    if node not in look.anchors or len(values) != 2 or not all(isinstance(value, int | float) and value < 0 for value in values):
        return
    if min(map(float, values)) > lowest / 4:  # pyright: ignore[reportArgumentType] -- they are numbers
        return
    look.begin()
    x, y = look.leaf(node.ins[0], node), look.leaf(node.ins[1], node)

    def value(env: Env, times: float = 1.0) -> Array:
        return jnp.maximum(look.rebound(env, [*node.ins], [env[x], env[y]]), times * lowest)

    text = f"jnp.maximum({{{x}}} + {{{y}}}, jnp.finfo(jnp.{node.ins[0].dtype}).min)"
    yield look.found(Form(value, text, other=lambda env: value(env, 0.5)), "bound", "ND270")


PATTERNS: Patterns = {
    "mul": (mask_times_inf, product_with_log, product_with_exp, zero_times_infinite),
    "dot_general": (contracted_with_log,),
    "sub": (less_its_maximum, same_infinities),
    "add": (empty_log_sum_exp, masks_added_up),
    "custom_jvp_call": (xlogy_of_probability,),
}
