"""Parts of values: an element, some rows, a diagonal, or all of them in another shape."""

from __future__ import annotations

from jax import Array

from nandetect.fixing.forms import PICKED, Form, again
from nandetect.fixing.graph import Node, is_floating
from nandetect.fixing.look import Look

PICKS = (
    "gather",
    "slice",
    "dynamic_slice",
    "squeeze",
    "reshape",
    "transpose",
    "broadcast_in_dim",
    "rev",
    "concatenate",
    "expand_dims",
    "copy",
)
# Of these, what leaves every element where it is.
RESHAPES = ("reshape", "squeeze", "broadcast_in_dim", "copy")


def picks(look: Look, value: Array) -> list[Node]:
    """The operations that took a value out of another, the last first."""
    taken: list[Node] = []
    node = look.graph.maker(value)
    while node is not None and len(taken) < 12 and _is_pick(look, node):
        taken.append(node)
        node = look.graph.maker(whole(taken))
    return taken if node is not None else []


def whole(taken: list[Node]) -> Array:
    """What the last of some operations took a part of."""
    return _of(taken[-1])


def _of(node: Node) -> Array:
    return node.ins[-1] if node.name == "cond" else node.ins[0]


def _is_pick(look: Look, node: Node) -> bool:
    # A diagonal is taken in a way of each platform's own.
    is_diagonal = node.name == "cond" and look.op(node.ins[0], "platform_index") is not None
    return (node.name in PICKS or is_diagonal) and len(node.outs) == 1 and is_floating(_of(node))


def of_picked(look: Look, taken: list[Node], of: Form) -> Form:
    """What is taken out of a form as it was out of what the form is of."""
    value = whole(taken)
    # With what makes their indices, where that is constant.
    nodes = look.graph.cone(taken[0], [value])[0]
    text = of.text if all(pick.name in RESHAPES for pick in taken) else f"{of.text}{PICKED}"
    return Form(lambda env: again(env, nodes, [value], [of.value(env)])[0], text, of.code)
