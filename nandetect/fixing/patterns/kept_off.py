"""What keeps the operand of an operation off its edge: a bound, a shift, a number in place of what is."""

from __future__ import annotations

from jax import Array

from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.look import Look
from nandetect.records import Event

# Which operand of an operation brings it to its edge, and what is said of one that can be there.
ROOT = "take `{}` of what can be 0"
END = "take `{}` of what can be 1 or -1"
ENDS = ("acos", "asin", "atanh", "erf_inv")
EDGES: dict[str, tuple[int, str]] = {
    **{name: (0, ROOT) for name in ("sqrt", "cbrt", "log", "log2", "lgamma", "digamma")},
    "pow": (0, "take a power of what can be 0"),
    "div": (1, "divide by what can be 0"),
    "integer_pow": (0, "divide by what can be 0"),
    "rsqrt": (0, "divide by what can be 0"),
    **{name: (0, END) for name in ENDS},
    "log1p": (0, "take `log1p` of what can be -1"),
    "exp": (0, "take `exp` of what can be large"),
}
# What is never 0 but by underflow, and what is not below 0 where its operands are not.
POSITIVE = ("exp", "exp2", "cosh", "logistic")
PASSES = ("sqrt", "abs", "square", "reduce_sum", "reduce_max", "reduce_min", "cumsum", "neg", "rsqrt")


def is_kept_off(graph: Graph, node: Node) -> bool:
    """Whether the operand of an operation cannot be at its edge: it is bounded, shifted, or chosen with a number in place of what is."""
    operand = node.ins[EDGES[node.name][0]]
    if node.name == "exp":
        return _is_bounded_above(graph, operand)
    if node.name in (*ENDS, "log1p"):
        return _is_bounded(graph, operand)
    return _is_off_zero(graph, operand)


def _is_off_zero(graph: Graph, value: Array, depth: int = 8) -> bool:
    number = graph.constant(value)
    if number is not None:
        return number != 0
    node = graph.maker(value)
    if node is None or depth == 0:
        return False
    numbers = [graph.constant(x) for x in node.ins]
    # Of a `where`, a bound or a shift: the number that somebody put there is what keeps it off.
    if node.name in ("select_n", "max", "clamp", "add") and any(number is not None and number > 0 for number in numbers):
        return True
    if node.name in POSITIVE:
        return True
    if node.name in ("mul", "div"):
        return all(_is_off_zero(graph, x, depth - 1) for x in node.ins)
    if node.name in ("add", "max"):
        return any(_is_off_zero(graph, x, depth - 1) for x in node.ins)
    passes = node.name in PASSES or graph.moved(value) is not value or node.name in ("broadcast_in_dim", "reshape", "integer_pow")
    return passes and bool(node.ins) and _is_off_zero(graph, node.ins[0], depth - 1)


def _is_bounded(graph: Graph, value: Array) -> bool:
    """Whether a bound that is inside of the ends is put on a value."""
    node = graph.maker(graph.moved(value))
    if node is None or node.name not in ("min", "max", "clamp", "select_n", "mul", "tanh"):
        return False
    return any(number is not None and abs(number) < 1 for number in map(graph.constant, node.ins))


def _is_bounded_above(graph: Graph, value: Array) -> bool:
    """Whether an exponent is bounded, has its maximum taken off, or is the negative of what is not negative."""
    value = graph.moved(value)
    node = graph.maker(value)
    if node is None:
        return False
    if node.name == "neg":
        made = graph.maker(graph.moved(node.ins[0]))
        return made is not None and made.name in ("abs", "square", "integer_pow", "exp", "reduce_sum")
    if node.name == "sub":
        return Look(graph, node, Event(primitive="exp"), ()).unshifted(value) is not value
    return node.name in ("min", "clamp", "select_n", "tanh", "logistic", "log", "log1p")
