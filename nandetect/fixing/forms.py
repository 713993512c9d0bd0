"""What a pattern gives: a form that may stand in for an operation, how it stands to the old one, and what it is made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from nandetect.fixing.graph import Node
from nandetect.fixing.rebind import Instead, rebind

# How a new form stands to the old one: the same function; the same but where the old one breaks and its value is not taken, or has a limit;
# or another one there, with a number that somebody chose.
# With "shift", it is another function everywhere, by a little: advice at most. With "advice" there is no form of one operation to be tried.
Kind = Literal["same", "guard", "bound", "shift", "advice"]
Env = Mapping[str, Any]
# In an `Env`: what stands, outside of a trace, in place of values that no leaf leads to.
OTHERS = "others"
# In a form's text: an element is picked here in a way that has no short text. Such a form is not shown, but the general one.
PICKED = "[...]"
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

    What is shown is the root's expression replaced by the form's text; or, with `edits`, the anchor's with those of its operands replaced,
    or all that are called so in the expression `shown_at`. `said` are the values that make it a hazard, in a phrase: "90,000 is the sum of
    3,000 terms of 30".
    """

    code: str
    root: Node
    form: Form
    leaves: Mapping[str, Array]
    names: Mapping[str, Operand]
    kind: Kind = "same"
    at_anchor: Node | None = None
    edits: Mapping[str, str] = field(default_factory=dict)
    said: str = ""
    shown_at: Node | None = None

    @property
    def place(self) -> Node:
        """The operation whose expression is shown."""
        return self.shown_at or self.at_anchor or self.root


def again(env: Env, nodes: Sequence[Node], leaves: Sequence[Array], values: Sequence[Array], instead: Instead | None = None) -> list[Array]:
    """The results of the last of some operations with these values for the leaves, in the width that `env` asks for."""
    others = env.get(OTHERS, ())
    given, new = [*leaves, *(old for old, _ in others)], [*values, *(new for _, new in others)]
    return rebind(nodes, given, new, env.get(WIDER), instead)


def shaped(value: Array, shape: tuple[int, ...]) -> Array:
    """A value in the shape of what it stands in for."""
    return jnp.reshape(value, shape) if value.size == math.prod(shape) else jnp.broadcast_to(value, shape)


def with_slope(value: Array, x: Array, alive: Array) -> Array:
    """A value that has a slope of 1 in x where it has none of its own: results that show it depend on a slope that was chosen."""
    return value + jnp.where(alive, 0, 1) * (x - jax.lax.stop_gradient(x))


def axis_of(axes: tuple[int, ...]) -> int | tuple[int, ...]:
    """Axes as a function of JAX takes them: one by itself."""
    return axes[0] if len(axes) == 1 else axes


def axes_text(axes: tuple[int, ...], ndim: int, kept: bool = False) -> str:
    """`, axis=0` for axes other than the last; and whether those that are summed over are kept."""
    keeping = ", keepdims=True" if kept else ""
    if axes == (ndim - 1,):
        return keeping
    if axes == tuple(range(ndim)):
        return (", axis=None" if ndim > 1 else "") + keeping
    return f", axis={axis_of(axes)}" + keeping
