"""What a divisor that is 0 was meant to be: a range, a length, a count, a setting, what is left of 1."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array

from nandetect.fixing.forms import PICKED, Env, Form, Found
from nandetect.fixing.look import Look, Patterns

# The least that is left of 1.
LEAST = 1e-6


def kind_of(look: Look, above: Array | None, below: Array) -> tuple[str, bool] | None:
    """The hazard of a divisor that is 0, told from how it was made, and whether its dividend is 0 with it."""
    if above is None:
        return None
    if (x := _range(look, below)) is not None:
        return "ND293", _is_less_an_end_of(look, above, x)
    if _is_product_of_norms(look, below):
        return "ND233", True
    if _is_length(look, above, below):
        return "ND285", False
    if look.constant(below) == 0 or _is_setting(look, above, below):
        return "ND286", False
    return None


def _range(look: Look, value: Array) -> Array | None:
    """The x of max(x) - min(x)."""
    node = look.op(value, "sub")
    ends = [look.op(x, name) for x, name in zip(node.ins, ("reduce_max", "reduce_min"), strict=True)] if node else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    return ends[0].ins[0] if look.is_same(ends[0].ins[0], ends[1].ins[0]) else None


def _is_less_an_end_of(look: Look, value: Array, x: Array) -> bool:
    """Whether a value is x less its minimum, or its maximum less x, by a factor."""
    node = look.op(look.scaled(value)[0], "sub")
    ends = [look.op(one, "reduce_min", "reduce_max") for one in node.ins] if node else []
    return any(end is not None and look.is_same(end.ins[0], x) for end in ends)


def _is_product_of_norms(look: Look, value: Array) -> bool:
    node = look.op(look.without_zeros(value), "mul")
    roots = [look.op(x, "sqrt") for x in node.ins] if node else []
    return len(roots) == 2 and all(root is not None and look.sum_of_squares(root.ins[0]) is not None for root in roots)


def _is_length(look: Look, above: Array, below: Array) -> bool:
    """Whether (t - a) / (b - a) is divided, or one count by another: how much of a stretch is over."""
    one, other = look.op(look.scaled(above)[0], "sub"), look.op(below, "sub")
    if one is not None and other is not None:
        return look.is_same(one.ins[1], other.ins[1]) and look.op(other.ins[1], "reduce_min", "reduce_max") is None
    return look.cast_of_integer(above) is not None and look.cast_of_integer(below) is not None


def _is_setting(look: Look, above: Array, below: Array) -> bool:
    """Whether many are divided by one number that came in as it is."""
    inner = look.graph.moved(below)
    # What enters a body, or is one of many under `vmap`, has no maker either.
    came_in = next((event for event in look.cause[:1] if event.primitive == "<input>" and event.operands), None)
    if came_in is None or came_in.operands[0].shape:
        return False
    return look.graph.maker(inner) is None and inner.ndim == 0 and look.graph.moved(above).ndim > 0


def of_nothing(look: Look) -> Iterator[Found]:
    """A mean or a variance whose count is 0 by the shape alone: the sum is divided by 1."""
    node = look.node
    cases = node.ins[1:] if node.name == "select_n" else [node.outs[0]] if node.outs else []
    if node.name == "div":
        below, above = node.ins[1], node.ins[0]
    else:
        made = [look.op(case, "div") for case in cases]
        division = next((one for one in made if one is not None and look.constant(one.ins[1]) == 0), None)
        if division is None:
            return
        above, below = division.ins
    if look.constant(below) != 0 or look.op(above, "reduce_sum") is None:
        return
    look.begin()
    x = look.leaf(above, node)
    yield look.found(Form(lambda env: env[x], PICKED), "guard", "ND294")


def odds(look: Look) -> Iterator[Found]:
    """p / (1 - p) of a p that is 1."""
    split = look.quotient(look.node)
    less = look.one_minus(split[1]) if split is not None else None
    if split is None or split[0] is None or less is None or not look.is_same(split[0], less):
        return
    look.begin()
    p = look.leaf(less)

    def value(env: Env, least: float = LEAST) -> Array:
        return env[p] / jnp.where(env[p] != 1, 1 - env[p], least)

    text = f"{{{p}}} / jnp.where({{{p}}} != 1, 1 - {{{p}}}, {LEAST:g})"
    yield look.found(Form(value, text, other=lambda env: value(env, 2 * LEAST)), "bound", "ND297")


def tiny(look: Look) -> Iterator[Found]:
    """A divisor that is guarded against 0, and is what comes next to it."""
    guard = look.op(look.node.ins[1], "select_n")
    asked = look.op(guard.ins[0], "eq", "ne") if guard is not None else None
    if look.node not in look.anchors or look.origin.value == "nan" or guard is None or asked is None:
        return
    if any(
        look.constant(zero) == 0 and any(look.is_same(x, case) for case in guard.ins[1:]) for x, zero in look.two(guard.ins[0], "eq", "ne")
    ):
        yield look.advised("ND289")


PATTERNS: Patterns = {"div": (odds, of_nothing, tiny), "select_n": (of_nothing,), "mul": (odds,)}
