"""How a program uses its kernels, read off its jaxpr: which axes each contracts, and what happens to the product next.

One walk over the equations with a label for each value; a table says what an equation does to the labels. Nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from nandetect import compat
from nandetect.audit.schemes import Follows

Key = tuple[int, ...]
Set = frozenset[Key]
NONE: Set = frozenset()
# One original axis of a parameter, or a factor of one, as it lies in an axis of a value now: (axis, size).
Atoms = tuple[tuple[tuple[int, int], ...], ...]

# The functions of jax.nn that are jitted or have a derivative of their own, by the name that the jaxpr gives them.
ACTIVATIONS = {
    "relu": "relu", "relu6": "relu", "leaky_relu": "leaky_relu", "silu": "silu", "swish": "silu", "gelu": "gelu", "elu": "elu",
    "celu": "elu", "selu": "selu", "softplus": "softplus", "logaddexp": "softplus", "hard_tanh": "tanh", "tanh": "tanh",
    "sigmoid": "sigmoid", "mish": "silu", "hard_sigmoid": "sigmoid", "hard_silu": "silu", "log_sigmoid": "softplus",
    "softmax": "softmax", "_softmax": "softmax", "log_softmax": "softmax", "squareplus": "softplus", "soft_sign": "tanh",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of a value.

    `leaf` and `atoms`: it is that parameter, its axes moved. `is_data`: it depends on the inputs. `pending`: it is the product of these
    sites but for what is linear, `normed` that and a normalisation. `after`: it is their product behind a nonlinearity. `over`: a statistic
    of it. `compared`: a mask made of it. `upstream`: every site that it depends on. `constant` is a number that was written in the program.
    `is_changed`: the parameter was multiplied by something computed, so that it acts with another scale than it has.
    """

    leaf: int | None = None
    atoms: Atoms | None = None
    factor: float = 1.0
    is_data: bool = False
    pending: Set = NONE
    normed: Set = NONE
    after: Set = NONE
    over: Set = NONE
    compared: Set = NONE
    upstream: Set = NONE
    constant: float | None = None
    is_one_hot: bool = False
    is_changed: bool = False


PLAIN = Label()
_SETS = ("pending", "normed", "after", "over", "compared", "upstream")


@dataclass(slots=True, kw_only=True)
class Site:
    """One equation in which a parameter meets an activation: its fans, and the events that followed in the order of the program.

    `key` is the equation's place (numbers of the enclosing equations, and its own). `units` is the axis of the product along which its
    outputs lie, `signal` the number of the operand that is no parameter, `branched` whether several axes are its outputs. `acts` are the
    places of the activations that its product went into, each with the operand's number there.
    """

    key: Key
    leaf: int
    fan_in: int
    fan_out: int
    window: int
    factor: float = 1.0
    units: int | None = None
    signal: int = 0
    branched: bool = False
    is_changed: bool = False
    is_conv_transpose: bool = False
    events: list[str] = field(default_factory=list)
    acts: dict[Key, tuple[int, str]] = field(default_factory=dict)
    fed_by: Set = NONE
    upstream: Set = NONE


@dataclass(slots=True)
class Reading:
    """All sites of a program in its order, the parameters that are looked up, whether a logarithm is taken, and whether anything
    is divided by a root of what the inputs make, as a normalisation does."""

    sites: dict[Key, Site] = field(default_factory=dict)
    looked_up: set[int] = field(default_factory=set)
    has_logarithm: bool = False
    normalises: bool = False

    def note(self, keys: Set, event: str) -> None:
        for key in keys:
            if event not in self.sites[key].events:
                self.sites[key].events.append(event)

    def is_last(self, site: Site) -> bool:
        """Whether no other site depends on it."""
        return not any(site.key in other.upstream for other in self.sites.values() if other.key != site.key)

    def follows(self, site: Site) -> Follows:
        """The nonlinearity behind a site's product, or what else becomes of it."""
        events = [event for event in site.events if event not in _WEAK]
        first = events[0] if events else ""
        if first == "tanh" and {"square", "selfgate"} <= set(site.events):
            first = "gelu"
        if first == "sigmoid" and "selfgate" in site.events:
            first = "silu"
        if self.is_last(site) and first not in _CURVES:
            return "output"
        return cast(Follows, first or ("kernel" if "kernel" in site.events else "gate" if "gate" in site.events else "output"))


# What may come before the event that says what a product is for, or beside it.
_WEAK = ("sum", "square", "selfgate", "kernel", "output", "gate")
_CURVES = ("relu", "leaky_relu", "tanh", "gelu", "silu", "softplus", "elu", "selu", "sin")


def read(jaxpr: Any, consts: Sequence[Any], parameters: Sequence[int], constants_are_data: bool) -> Reading:
    """Read a closed program whose first arguments are the leaves `parameters`; its other arguments are inputs."""
    reading = Reading()
    labels = [_parameter(var, leaf) for var, leaf in zip(jaxpr.invars, parameters, strict=False)]
    labels += [Label(is_data=True)] * (len(jaxpr.invars) - len(labels))
    given = [_constant(value, constants_are_data) for value in consts]
    outs = _walk(reading, jaxpr, given, labels, (), constants_are_data)
    for label in outs:
        reading.note(label.pending, "output")
    return reading


def _parameter(var: Any, leaf: int) -> Label:
    return Label(leaf=leaf, atoms=tuple(((axis, size),) for axis, size in enumerate(var.aval.shape)))


def _constant(value: Any, is_data: bool) -> Label:
    if np.size(value) == 1 and not hasattr(value, "aval"):
        return Label(constant=_number(value))
    return Label(is_data=is_data and np.size(value) > 1)


def _number(value: Any) -> float | None:
    try:
        return float(np.asarray(value).reshape(-1)[0])
    except (TypeError, ValueError):
        return None


def _walk(reading: Reading, jaxpr: Any, consts: Sequence[Label], args: Sequence[Label], path: Key, data: bool) -> list[Label]:
    env: dict[Any, Label] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Label:
        return Label(constant=_number(atom.val)) if isinstance(atom, compat.Literal) else env.get(atom, PLAIN)

    for number, eqn in enumerate(jaxpr.eqns):
        ins = [read(atom) for atom in eqn.invars]
        rule = RULES.get(eqn.primitive.name, _nested)
        outs = rule(Step(reading, eqn, ins, (*path, number), data))
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


@dataclass(frozen=True, slots=True)
class Step:
    """One equation with the labels of its operands."""

    reading: Reading
    eqn: Any
    ins: list[Label]
    key: Key
    data: bool

    @property
    def name(self) -> str:
        return self.eqn.primitive.name

    def outs(self, label: Label) -> list[Label]:
        return [label] * len(self.eqn.outvars)

    def shape(self, at: int) -> tuple[int, ...]:
        return tuple(self.eqn.invars[at].aval.shape)


Rule = Callable[[Step], list[Label]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function in the table under the primitives it is for."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def merged(ins: Sequence[Label], **changes: Any) -> Label:
    """What is known of a value made of these, whatever made it."""
    union: dict[str, Any] = {name: frozenset().union(*(getattr(label, name) for label in ins)) for name in _SETS}
    return replace(Label(is_data=any(label.is_data for label in ins), **union), **changes)


def activated(step: Step, event: str) -> list[Label]:
    """The equation is a nonlinearity of whatever is pending in it."""
    pending = frozenset().union(*(label.pending for label in step.ins))
    step.reading.note(pending, event)
    for at, label in enumerate(step.ins):
        for key in label.pending | label.normed:
            step.reading.sites[key].acts.setdefault(step.key, (at, event))
    out = merged(step.ins, pending=NONE, normed=NONE)
    return step.outs(replace(out, after=out.after | pending))


def _nested(step: Step) -> list[Label]:
    """What no rule is for: entered where it carries one jaxpr over its operands; else taken for a nonlinearity."""
    found = compat.sub_jaxprs(step.eqn)
    inner = compat.open_jaxpr(found[0][1]) if len(found) == 1 else None
    name = str(step.eqn.params.get("name") or getattr(getattr(inner and inner[0], "debug_info", None), "func_name", ""))
    if name in ACTIVATIONS and any(label.pending for label in step.ins):
        step.reading.has_logarithm |= "log" in name or name == "softplus"
        return activated(step, ACTIVATIONS[name])
    if inner and len(inner[0].invars) == len(step.ins) and len(inner[0].outvars) == len(step.eqn.outvars):
        return _walk(step.reading, inner[0], [_constant(c, step.data) for c in inner[1]], step.ins, step.key, step.data)
    return activated(step, "other")


@rule("scan")
def _scan(step: Step) -> list[Label]:
    jaxpr, consts = compat.open_jaxpr(step.eqn.params["jaxpr"])
    fixed, carried = compat.scan_parts(step.eqn)
    given = [_constant(c, step.data) for c in consts]
    rows = [_without_first_axis(label) for label in step.ins[fixed + carried :]]
    carry = step.ins[fixed : fixed + carried]
    outs: list[Label] = []
    # Twice: what an iteration hands on is known only after the first.
    for _ in range(2):
        outs = _walk(step.reading, jaxpr, given, [*step.ins[:fixed], *carry, *rows], step.key, step.data)
        carry = [_joined(before, after) for before, after in zip(carry, outs[:carried], strict=True)]
    return [*carry, *outs[carried:]]


@rule("while")
def _while(step: Step) -> list[Label]:
    params = step.eqn.params
    jaxpr, consts = compat.open_jaxpr(params["body_jaxpr"])
    start = params["cond_nconsts"]
    fixed = step.ins[start : start + params["body_nconsts"]]
    carry = step.ins[start + params["body_nconsts"] :]
    for _ in range(2):
        outs = _walk(step.reading, jaxpr, [_constant(c, step.data) for c in consts], [*fixed, *carry], step.key, step.data)
        carry = [_joined(before, after) for before, after in zip(carry, outs, strict=True)]
    return list(carry)


@rule("cond")
def _cond(step: Step) -> list[Label]:
    found: list[list[Label]] = []
    for slot, branch in enumerate(step.eqn.params["branches"]):
        jaxpr, consts = compat.open_jaxpr(branch)
        given = [_constant(c, step.data) for c in consts]
        found.append(_walk(step.reading, jaxpr, given, step.ins[1:], (*step.key, slot), step.data))
    return [merged(labels) for labels in zip(*found, strict=True)]


def _without_first_axis(label: Label) -> Label:
    return replace(label, atoms=label.atoms[1:]) if label.atoms else label


def _joined(before: Label, after: Label) -> Label:
    return before if before.leaf is not None and before == after else merged([before, after], leaf=before.leaf, atoms=before.atoms)


def product(label: Label, axes: Sequence[int]) -> int:
    """The number of weights along axes of a parameter, of the whole parameter where it was cut into slices."""
    assert label.atoms is not None
    return math.prod(size for axis in axes for _, size in label.atoms[axis])
