"""Operations whose result is not taken at the element where they break: by a `where`, or by a factor that is 0 there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array

from nandetect.fixing.forms import Env, Form, Found
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns

# For each operation that can break: the operand that breaks it, a number that does not, and the hazard.
HARMLESS: dict[str, tuple[int, float, str]] = {
    "div": (1, 1.0, "ND231"),
    "rem": (1, 1.0, "ND231"),
    "integer_pow": (0, 1.0, "ND231"),
    "rsqrt": (0, 1.0, "ND231"),
    "sqrt": (0, 1.0, "ND221"),
    "cbrt": (0, 1.0, "ND226"),
    "pow": (0, 1.0, "ND226"),
    "log": (0, 1.0, "ND214"),
    "log2": (0, 1.0, "ND214"),
    "log1p": (0, 0.0, "ND214"),
    "exp": (0, 0.0, "ND241"),
    "exp2": (0, 0.0, "ND241"),
    "expm1": (0, 0.0, "ND241"),
    "cosh": (0, 0.0, "ND241"),
    "sinh": (0, 0.0, "ND241"),
    "square": (0, 0.0, "ND241"),
    "acos": (0, 0.0, "ND236"),
    "asin": (0, 0.0, "ND236"),
    "atanh": (0, 0.0, "ND238"),
    "acosh": (0, 2.0, "ND236"),
    "atan2": (1, 1.0, "ND235"),
    "lgamma": (0, 1.0, "ND266"),
    "digamma": (0, 1.0, "ND266"),
    "erf_inv": (0, 0.0, "ND266"),
    "tan": (0, 0.0, "ND266"),
}


# What these break by a factor of 0 has forms of its own.
FINITE_AT_ZERO = ("log", "log2", "sqrt", "pow", "log1p")


def masked_branch(look: Look) -> Iterator[Found]:
    """A `where` that does not take what broke: what broke is given a harmless operand there."""
    node = look.node
    if look.origin.phase == "forward" and look.origin.derivative_of is None:
        # What reached a result was taken.
        return
    for slot, case in enumerate(node.ins[1:]):
        made = look.graph.upstream(case, (), most=60)
        # The nearest: another at the same place is another call of the same function.
        for near in sorted((one for one in look.anchors if one in made and _deadly(one)), key=lambda one: -one.number)[:1]:
            for operand, harmless, code in _deadly(near):
                yield from _guarded(look, slot, near, operand, harmless, code)
                yield from _guarded_everywhere(look, slot, near, operand, harmless, code)


def _deadly(anchor: Node) -> list[tuple[int, float, str]]:
    """The operands of an operation that may break it, each with a harmless number and the hazard."""
    if anchor.name == "mul":
        return [(slot, 0.0, "ND267") for slot in (1, 0)]
    return [HARMLESS[anchor.name]] if anchor.name in HARMLESS else []


def _named(look: Look, anchor: Node, code: str) -> str:
    """The hazard of what broke in a branch, where a library's function is what the user sees of it."""
    summed = look.summed(anchor.ins[0]) if anchor.name == "log" else None
    inside = look.op(anchor.ins[0], "abs") if anchor.name == "log" and summed is None else None
    summed = look.summed(inside.ins[0]) if inside is not None else summed
    exponent = look.exponent(summed[0]) if summed is not None else None
    return "ND265" if exponent is not None and look.unshifted(exponent) is not exponent else code


def _guarded(look: Look, slot: int, anchor: Node, operand: int, harmless: float, code: str) -> Iterator[Found]:
    node = look.node
    x, which = anchor.ins[operand], node.ins[0]
    if look.constant(x) is not None or not _fits(which, x) or _is_guarded(look, which, x):
        return
    look.begin()
    name, chosen = look.leaf(x, anchor), look.leaf(which, node)

    def value(env: Env) -> Array:
        safe = jnp.where(_taken(env[chosen], slot, x), env[name], jnp.asarray(harmless, env[name].dtype))
        return look.guarded(env, {name: x, chosen: which}, anchor, operand, safe)

    guarded = _where_taken(which, chosen, slot, name, harmless)
    yield look.found(Form(value, guarded), "guard", _named(look, anchor, code), at_anchor=anchor, edits={name: guarded})


def _is_guarded(look: Look, which: Array, x: Array) -> bool:
    """Whether an operand is chosen by the same predicate already: what breaks then is what the predicate lets through."""
    made = look.op(x, "select_n")
    return made is not None and look.is_same(made.ins[0], which)


def _where_taken(which: Array, chosen: str, slot: int, name: str, harmless: float) -> str:
    """A value where its case is taken and a harmless number elsewhere, as text."""
    pred = f"{{{chosen}}}" if np.dtype(which.dtype) == bool else f"{{{chosen}}} == {slot}"
    return f"jnp.where({pred}, {{{name}}}, {harmless:.1f})" if slot else f"jnp.where({pred}, {harmless:.1f}, {{{name}}})"


def _guarded_everywhere(look: Look, slot: int, anchor: Node, operand: int, harmless: float, code: str) -> Iterator[Found]:
    """The same for all that reads the operand in the branch, where more of that can break."""
    node = look.node
    x, (which, *cases) = anchor.ins[operand], node.ins
    read = look.graph.upstream(cases[slot], [x])
    if look.constant(x) is not None or not _fits(which, x) or sum(one.name in HARMLESS for one in read) < 2:
        return
    look.begin()
    # The other cases are what they were.
    kept = [which, *(case for number, case in enumerate(cases) if number != slot and look.constant(case) is None)]
    name, chosen, *rest = look.leaf(x, anchor), *(look.leaf(value, node) for value in kept)

    def value(env: Env) -> Array:
        safe = jnp.where(_taken(env[chosen], slot, x), env[name], jnp.asarray(harmless, env[name].dtype))
        return look.rebound(env, [x, *kept], [safe, env[chosen], *(env[other] for other in rest)])

    guarded = _where_taken(which, chosen, slot, name, harmless)
    last = look.graph.maker(look.graph.moved(cases[slot]))
    found = look.found(Form(value, f"every {guarded}"), "guard", code, at_anchor=anchor, edits={name: guarded})
    yield replace(found, shown_at=last)


def _fits(which: Array, x: Array) -> bool:
    """Whether where a case is taken can be told for each element of an operand of what makes it."""
    lead = which.ndim - x.ndim
    if lead <= 0:
        return which.shape == x.shape[-lead:] if lead and which.ndim else which.ndim == 0 or which.shape == x.shape
    return x.size == 1 or which.shape[lead:] == x.shape or which.shape[: x.ndim] == x.shape


def _taken(which: Array, slot: int, x: Array) -> Array:
    """Where a case is taken, in the shape of an operand of what makes it: an element that is taken once is needed."""
    keep = which == slot if np.dtype(which.dtype) != bool else which if slot else ~which
    lead = keep.ndim - x.ndim
    if lead <= 0:
        return keep
    if x.size == 1:
        return jnp.any(keep).reshape(x.shape)
    over = tuple(range(lead)) if keep.shape[lead:] == x.shape else tuple(range(x.ndim, keep.ndim))
    return jnp.any(keep, over)


def masked_factor(look: Look) -> Iterator[Found]:
    """A factor that is 0 where the other breaks: 0 * inf is nan, so what breaks is given a harmless operand there."""
    node = look.node
    for slot in (0, 1):
        factor, broken = node.ins[slot], node.ins[1 - slot]
        if look.constant(factor) is not None or look.constant(broken) is not None or factor.shape != broken.shape:
            continue
        made = look.graph.upstream(broken, (), most=40)
        for anchor in look.anchors:
            if anchor in made and anchor.name in HARMLESS and anchor.name not in FINITE_AT_ZERO and _is_mask(look, factor):
                yield from _by_factor(look, factor, anchor)


def _by_factor(look: Look, factor: Array, anchor: Node) -> Iterator[Found]:
    operand, harmless, code = HARMLESS[anchor.name]
    x = anchor.ins[operand]
    if x.shape != factor.shape or look.constant(x) is not None:
        return
    look.begin()
    name, mask = look.leaf(x, anchor), look.leaf(factor, look.node)

    def value(env: Env) -> Array:
        safe = jnp.where(env[mask] != 0, env[name], jnp.asarray(harmless, env[name].dtype))
        return look.guarded(env, {name: x, mask: factor}, anchor, operand, safe)

    text = f"jnp.where({{{mask}}} != 0, {{{name}}}, {harmless:.1f})"
    yield look.found(Form(value, text), "guard", code, at_anchor=anchor, edits={name: text})


def _is_mask(look: Look, value: Array) -> bool:
    """Whether a value is made of truth values."""
    value = look.graph.moved(value)
    for _ in range(4):
        node = look.graph.maker(value)
        if node is None:
            return not jnp.issubdtype(value.dtype, jnp.floating)
        if node.name == "convert_element_type":
            return not jnp.issubdtype(node.ins[0].dtype, jnp.floating)
        less = look.one_minus(value)
        if less is None:
            return False
        value = look.graph.moved(less)
    return False


PATTERNS: Patterns = {"select_n": (masked_branch,), "mul": (masked_factor,)}
