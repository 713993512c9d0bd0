"""What a pattern sees: the operation it may stand in for, what made its operands, and the fault that was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from nandetect import primitives
from nandetect.fixing.forms import PICKED, Env, Form, Found, Kind, Operand, again
from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.rebind import Instead
from nandetect.records import Event


@dataclass
class Look:
    """One operation, `node`, as patterns look at it. `anchors` are the operations at the place of the fault, `origin` the fault."""

    graph: Graph
    node: Node
    origin: Event
    anchors: Sequence[Node]
    cause: tuple[Event, ...] = ()
    _leaves: dict[str, Array] = field(default_factory=dict)
    _names: dict[str, Operand] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget the leaves of the pattern before."""
        self._leaves, self._names = {}, {}

    def leaf(self, value: Array, reader: Node | None = None) -> str:
        """The name of a value that a form is computed from."""
        for name, known in self._leaves.items():
            if known is value:
                return name
        name = "xyzuvwabcdefghijklmnopqrst"[len(self._leaves) % 26]
        self._leaves[name] = value
        readers = [reader] if reader is not None else [*self.graph.readers(value), self.node]
        reader = next((one for one in readers if one.source is not None and not one.is_derivative), readers[0])
        slot = next((slot for slot, x in enumerate(reader.ins) if x is value), -1)
        self._names[name] = Operand(reader, slot, self.graph.maker(self.graph.moved(value)))
        return name

    def has_leaf(self, value: Array) -> bool:
        """Whether a value is one that the form is computed from already."""
        return any(self.is_same(value, leaf) for leaf in self._leaves.values())

    def found(
        self,
        form: Form,
        kind: Kind = "same",
        code: str = "",
        at_anchor: Node | None = None,
        edits: Mapping[str, str] | None = None,
        said: str = "",
    ) -> Found:
        """The form in place of the operation."""
        return Found(code or form.code, self.node, form, dict(self._leaves), dict(self._names), kind, at_anchor, edits or {}, said)

    def advised(self, code: str, said: str = "") -> Found:
        """A hazard at the operation that no form of it mends."""
        self.begin()
        return self.found(Form(lambda env: None, PICKED), "advice", code, said=said)

    def op(self, value: Array, *names: str) -> Node | None:
        """What made a value, before it was only stretched or cast, where it is one of these."""
        node = self.graph.maker(self.graph.moved(value))
        return node if node is not None and node.name in names else None

    def cast_of_integer(self, value: Array) -> Node | None:
        """The cast that made a floating number of an integer, before it was only stretched or cast."""
        node = self.op(value, "convert_element_type")
        return node if node is not None and jnp.issubdtype(node.ins[0].dtype, jnp.integer) else None

    def constant(self, value: Array) -> float | None:
        """The number that a value is everywhere."""
        return self.graph.constant(value)

    def is_same(self, one: Array, other: Array, depth: int = 4) -> bool:
        """Whether two values are one, before they were stretched or cast: or were computed twice in the same way."""
        one, other = self.graph.moved(one), self.graph.moved(other)
        if one is other:
            return True
        if not isinstance(one, Tracer) or not isinstance(other, Tracer):
            number = self.constant(one)
            return number is not None and number == self.constant(other)
        made, again = self.graph.maker(one), self.graph.maker(other)
        if made is None or again is None or made is again or depth == 0 or made.name != again.name or len(made.ins) != len(again.ins):
            return False
        if made.called or primitives.named(made.name).draws or str(made.params) != str(again.params):
            return False
        return all(self.is_same(a, b, depth - 1) for a, b in zip(made.ins, again.ins, strict=True))

    def both(self) -> list[tuple[Array, Array]]:
        """The two operands of the operation itself, in both orders."""
        return _in_both_orders(self.node)

    def two(self, value: Array, *names: str) -> list[tuple[Array, Array]]:
        """The operands of a value that an operation on two made, in both orders."""
        node = self.op(value, *names)
        return _in_both_orders(node) if node and len(node.ins) == 2 else []

    def negated(self, value: Array) -> Array | None:
        """The x of -x."""
        if node := self.op(value, "neg"):
            return node.ins[0]
        for a, b in self.two(value, "mul"):
            if self.constant(a) == -1:
                return b
        node = self.op(value, "sub")
        return node.ins[1] if node and self.constant(node.ins[0]) == 0 else None

    def plus(self, value: Array, number: float) -> Array | None:
        """The y of number + y."""
        return next((b for a, b in self.two(value, "add", "add_any") if self.constant(a) == number), None)

    def one_minus(self, value: Array) -> Array | None:
        """The y of 1 - y."""
        node = self.op(value, "sub")
        if node and self.constant(node.ins[0]) == 1:
            return node.ins[1]
        added = self.plus(value, 1.0)
        return None if added is None else self.negated(added)

    def scaled(self, value: Array) -> tuple[Array, float]:
        """A value without the constant factors before it, and their product."""
        factor = 1.0
        while True:
            value = self.graph.moved(value)
            node = self.op(value, "mul", "div", "neg")
            if node is None:
                return value, factor
            if node.name == "neg":
                value, factor = node.ins[0], -factor
                continue
            a, b = map(self.constant, node.ins)
            if b is not None and b != 0 and a is None:
                value, factor = node.ins[0], factor * b if node.name == "mul" else factor / b
            elif a is not None and b is None and node.name == "mul":
                value, factor = node.ins[1], factor * a
            else:
                return value, factor

    def squared(self, value: Array) -> Array | None:
        """The x of x * x, in any spelling."""
        node = self.op(value, "square", "integer_pow", "mul", "pow")
        if node is None:
            return None
        if node.name == "square" or (node.name == "integer_pow" and node.params["y"] == 2):
            return node.ins[0]
        if node.name == "mul" and self.is_same(node.ins[0], node.ins[1]):
            return node.ins[0]
        return node.ins[0] if node.name == "pow" and self.constant(node.ins[1]) == 2 else None

    def summed(self, value: Array) -> tuple[Array, tuple[int, ...]] | None:
        """The operand of a sum and the axes that it was over."""
        node = self.op(value, "reduce_sum")
        return (node.ins[0], tuple(node.params["axes"])) if node else None

    def keeps(self, value: Array, of: Array, axes: tuple[int, ...]) -> bool:
        """Whether a sum over some axes of a value has them still, of size 1."""
        return value.ndim == of.ndim > 0 and all(value.shape[axis] == 1 for axis in axes)

    def sum_of_squares(self, value: Array) -> tuple[Array, tuple[int, ...]] | None:
        """The x of the sum of x * x over axes, in any spelling; constant additions of 0 are looked through."""
        value = self.without_zeros(value)
        summed = self.summed(value)
        if summed:
            x = self.squared(self.without_zeros(summed[0]))
            return None if x is None else (x, summed[1])
        dot = self.op(value, "dot_general")
        if dot and self.is_same(dot.ins[0], dot.ins[1]):
            (left, right), (batch, _) = dot.params["dimension_numbers"]
            if tuple(left) == tuple(right) and len(left) + len(batch) == dot.ins[0].ndim:
                return dot.ins[0], tuple(left)
        return None

    def without_zeros(self, value: Array) -> Array:
        """A value without zeros that were added to it, as `sum` of a list begins with one."""
        while True:
            added = self.plus(value, 0.0)
            if added is None:
                for a, b in self.two(value, "add"):
                    if (square := self.squared(a)) is not None and self.constant(square) == 0:
                        added = b
            if added is None:
                # A bound of 0 on what is not negative.
                added = next((b for a, b in self.two(value, "max") if self.constant(a) == 0), None)
            if added is None:
                return value
            value = added

    def exponent(self, value: Array) -> Array | None:
        """The x of exp(x)."""
        node = self.op(value, "exp")
        return node.ins[0] if node else None

    def unshifted(self, exponent: Array) -> Array:
        """An exponent before its own maximum was taken off."""
        node = self.op(exponent, "sub")
        return node.ins[0] if node and self.is_maximum_of(node.ins[1], node.ins[0]) else exponent

    def is_maximum_of(self, value: Array, of: Array) -> bool:
        """Whether a value is the maximum of another, its gradient stopped or bounded by a number or not."""
        for _ in range(6):
            node = self.graph.maker(self.graph.moved(value))
            if node is None:
                return False
            if node.name == "reduce_max":
                return self.is_same(node.ins[0], of) or self.graph.maker(of) is self.graph.maker(node.ins[0]) is not None
            if node.name == "max":
                value = node.ins[1] if self.constant(node.ins[0]) is not None else node.ins[0]
            elif node.name == "select_n":
                value = next((case for case in node.ins[1:] if self.constant(case) is None), node.ins[1])
            else:
                return False
        return False

    def sigmoid(self, value: Array) -> tuple[Array, int] | None:
        """The x of sigmoid(x), and 1; or -1 where it was written as one of -x."""
        if node := self.op(value, "logistic"):
            return node.ins[0], 1
        below = self.reciprocal(value)
        if below is not None and (found := self.below_sigmoid(below)) is not None:
            return found
        node = self.op(value, "div")
        if node and (x := self.exponent(node.ins[0])) is not None:
            same = self.grown(node.ins[1])
            if same is not None and self.is_same(same, x):
                return x, 1
        return None

    def grown(self, value: Array) -> Array | None:
        """The x of 1 + exp(x)."""
        more = self.plus(value, 1.0)
        return self.exponent(more) if more is not None else None

    def below_sigmoid(self, divisor: Array) -> tuple[Array, int] | None:
        """The x and the sign of sigmoid(x), of the 1 + exp(-x) that it is 1 over."""
        x = self.grown(divisor)
        if x is None:
            return None
        negative = self.negated(x)
        return (x, -1) if negative is None else (negative, 1)

    def quotient(self, node: Node) -> tuple[Array | None, Array] | None:
        """The dividend and the divisor of an operation; no dividend for 1 / d."""
        if node.name == "div":
            return (None if self.constant(node.ins[0]) == 1 else node.ins[0]), node.ins[1]
        if node.name == "integer_pow" and node.params["y"] == -1:
            return None, node.ins[0]
        if node.name == "mul":
            return next(((a, below) for a, b in _in_both_orders(node) if (below := self.reciprocal(b)) is not None), None)
        return None

    def reciprocal(self, value: Array) -> Array | None:
        """The d of 1 / d."""
        node = self.op(value, "div", "integer_pow")
        split = self.quotient(node) if node is not None else None
        return split[1] if split is not None and split[0] is None else None

    def softmax(self, value: Array) -> tuple[Array, tuple[int, ...]] | None:
        """The logits and the axes of a softmax, shifted by the maximum or not."""
        node = self.op(value, "div", "mul")
        split = self.quotient(node) if node is not None else None
        found = self.over_its_sum(*split) if split is not None else None
        return (self.unshifted(found[0]), found[1]) if found is not None else None

    def over_its_sum(self, above: Array | None, below: Array) -> tuple[Array, tuple[int, ...]] | None:
        """The x of exp(x) over its own sum, and the axes of the sum."""
        x, summed = self.exponent(above) if above is not None else None, self.summed(self.without_zeros(below))
        other = self.exponent(summed[0]) if summed is not None else None
        return (x, summed[1]) if x is not None and summed is not None and other is not None and self.is_same(x, other) else None

    def between(self, leaves: Sequence[Array]) -> list[Node]:
        """The operations from the leaves to the operation itself, which is not yet bound where it is to be exchanged."""
        return self.graph.cone(self.node, leaves)[0]

    def rebound(self, env: Env, leaves: Sequence[Array], values: Sequence[Array]) -> Array:
        """What the operation gives with other values for some that lead to it; `env` may have more of them."""
        return self.rebound_all(env, leaves, values)[0]

    def guarded(self, env: Env, leaves: Mapping[str, Array], anchor: Node, slot: int, value: Array) -> Array:
        """What the operation gives with another value for one operand of one that leads to it, and nowhere else."""
        return again(
            env, self.between([*leaves.values()]), [*leaves.values()], [env[name] for name in leaves], Instead(anchor, slot, value)
        )[0]

    def where(self, env: Env, operand: Array, numbers: Array, alive: Array, otherwise: float = 0) -> Array:
        """What the operation gives of these numbers where they are alive; the others are 1 to it, and what is asked for in the result."""
        return jnp.where(alive, self.rebound(env, [operand], [jnp.where(alive, numbers, 1)]), otherwise)

    def rebound_all(self, env: Env, leaves: Sequence[Array], values: Sequence[Array]) -> list[Array]:
        """All results of the operation, as `rebound`."""
        return again(env, self.between(leaves), leaves, values)


# Finds what may stand in for an operation; a family has them by the primitive of that operation.
Pattern = Callable[[Look], Iterator[Found]]
Patterns = Mapping[str, tuple[Pattern, ...]]


def _in_both_orders(node: Node) -> list[tuple[Array, Array]]:
    one, other = node.ins
    return [(one, other), (other, one)]
