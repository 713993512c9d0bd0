"""What a pattern sees: the operation it may stand in for, what made its operands, and the fault that was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from nandetect import primitives
from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.rebind import Instead, rebind
from nandetect.records import Event

# How a new form stands to the old one: the same function; the same but where the old one breaks and its value is not taken, or has a limit;
# or another one there, with a number that somebody chose.
# With "shift", it is another function everywhere, by a little: advice at most.
Kind = Literal["same", "guard", "bound", "shift"]
Env = Mapping[str, Any]
# In an `Env`: what stands, outside of a trace, in place of values that no leaf leads to.
OTHERS = "others"
# And what makes floating types of operations wider.
WIDER = "wider"


@dataclass(frozen=True)
class Form:
    """A way to compute something from leaves of the user's program: as a function of them by name, and as text with `{name}` in it.

    `other` is the same with another number in place of one that was chosen.
    """

    value: Callable[[Env], Any]
    text: str
    code: str = ""
    other: Callable[[Env], Any] | None = None


@dataclass(frozen=True)
class Operand:
    """What a value is called by: an operation that reads it, as which of its operands, and the one that made it."""

    reader: Node
    slot: int
    maker: Node | None


@dataclass(frozen=True)
class Found:
    """A hazard found at an operation: `form` may stand in for it. `leaves` are the values it is computed from, `anchor` is what broke.

    What is shown is the root's expression replaced by the form's text; or, with `edits`, the anchor's with those of its operands replaced.
    """

    code: str
    root: Node
    form: Form
    leaves: Mapping[str, Array]
    names: Mapping[str, Operand]
    kind: Kind = "same"
    at_anchor: Node | None = None
    edits: Mapping[str, str] = field(default_factory=dict)


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
        self, form: Form, kind: Kind = "same", code: str = "", at_anchor: Node | None = None, edits: Mapping[str, str] | None = None
    ) -> Found:
        """The form in place of the operation."""
        return Found(code or form.code, self.node, form, dict(self._leaves), dict(self._names), kind, at_anchor, edits or {})

    def op(self, value: Array, *names: str) -> Node | None:
        """What made a value, before it was only stretched or cast, where it is one of these."""
        node = self.graph.maker(self.graph.moved(value))
        return node if node is not None and node.name in names else None

    def constant(self, value: Array) -> float | None:
        """The number that a value is everywhere."""
        return self.graph.constant(value)

    def is_same(self, one: Array, other: Array, depth: int = 4) -> bool:
        """Whether two values are one, before they were stretched or cast: or were computed twice in the same way."""
        one, other = self.graph.moved(one), self.graph.moved(other)
        if one is other:
            return True
        if not is_traced(one) or not is_traced(other):
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
        one, other = self.node.ins
        return [(one, other), (other, one)]

    def two(self, value: Array, *names: str) -> list[tuple[Array, Array]]:
        """The operands of a value that an operation on two made, in both orders."""
        node = self.op(value, *names)
        return [(node.ins[0], node.ins[1]), (node.ins[1], node.ins[0])] if node and len(node.ins) == 2 else []

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
        if below is not None and (grown := self.plus(below, 1.0)) is not None and (x := self.exponent(grown)) is not None:
            negative = self.negated(x)
            return (negative, 1) if negative is not None else (x, -1)
        node = self.op(value, "div")
        if node and (x := self.exponent(node.ins[0])) is not None:
            grown = self.plus(node.ins[1], 1.0)
            same = None if grown is None else self.exponent(grown)
            if same is not None and self.is_same(same, x):
                return x, 1
        return None

    def reciprocal(self, value: Array) -> Array | None:
        """The d of 1 / d."""
        node = self.op(value, "div", "integer_pow")
        if node is None:
            return None
        if node.name == "integer_pow":
            return node.ins[0] if node.params["y"] == -1 else None
        return node.ins[1] if self.constant(node.ins[0]) == 1 else None

    def softmax(self, value: Array) -> tuple[Array, tuple[int, ...]] | None:
        """The logits and the axes of a softmax, shifted by the maximum or not."""
        node = self.op(value, "div")
        parts = (node.ins[0], node.ins[1]) if node else None
        if parts is None:
            for a, b in self.two(value, "mul"):
                below = self.reciprocal(b)
                if below is not None:
                    parts = a, below
        if parts is None:
            return None
        x, summed = self.exponent(parts[0]), self.summed(self.without_zeros(parts[1]))
        if x is None or summed is None:
            return None
        other = self.exponent(summed[0])
        if other is None or not (self.is_same(x, other)):
            return None
        return self.unshifted(x), summed[1]

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

    def rebound_all(self, env: Env, leaves: Sequence[Array], values: Sequence[Array]) -> list[Array]:
        """All results of the operation, as `rebound`."""
        return again(env, self.between(leaves), leaves, values)


def again(env: Env, nodes: Sequence[Node], leaves: Sequence[Array], values: Sequence[Array], instead: Instead | None = None) -> list[Array]:
    """The results of the last of some operations with these values for the leaves, in the width that `env` asks for."""
    others = env.get(OTHERS, ())
    given, new = [*leaves, *(old for old, _ in others)], [*values, *(new for _, new in others)]
    return rebind(nodes, given, new, env.get(WIDER), instead)


def is_traced(value: Any) -> bool:
    """Whether a value is one of a trace."""
    return isinstance(value, Tracer)


def with_slope(value: Array, x: Array, alive: Array) -> Array:
    """A value that has a slope of 1 in x where it has none of its own: results that show it depend on a slope that was chosen."""
    return value + jnp.where(alive, 0, 1) * (x - jax.lax.stop_gradient(x))


def axis_of(axes: tuple[int, ...]) -> int | tuple[int, ...]:
    """Axes as a function of JAX takes them: one by itself."""
    return axes[0] if len(axes) == 1 else axes


def axes_text(axes: tuple[int, ...], ndim: int) -> str:
    """`, axis=0` for axes other than the last."""
    if axes == (ndim - 1,):
        return ""
    if axes == tuple(range(ndim)):
        return ", axis=None" if ndim > 1 else ""
    return f", axis={axes[0] if len(axes) == 1 else axes}"
