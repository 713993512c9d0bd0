"""How a program uses its kernels, read off its jaxpr: which axes each contracts, and what happens to the product next.

One walk over the equations gives each value a label; a table of rules says what an equation does to the labels. Nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from nandetect import compat
from nandetect.annotations import Array
from nandetect.audit.schemes import Follows
from nandetect.registry import Registry

# The place of an equation: its number in each enclosing jaxpr, outermost first.
Key = tuple[int, ...]
Keys = frozenset[Key]
NONE: Keys = frozenset()
# Each axis of a value as the axes of the parameter that lie in it, or factors of them: (axis of the parameter, size).
Atoms = tuple[tuple[tuple[int, int], ...], ...]
# What can happen to a product: what may follow a kernel, and three that only help to tell it.
Event = Follows | Literal["sum", "square", "selfgate"]

# Functions of jax.nn that are jitted or have a derivative of their own, by the name that the jaxpr gives them.
ACTIVATIONS: dict[str, Follows] = {
    "relu": "relu", "relu6": "relu", "leaky_relu": "leaky_relu", "silu": "silu", "swish": "silu", "gelu": "gelu", "elu": "elu",
    "celu": "elu", "selu": "selu", "softplus": "softplus", "logaddexp": "softplus", "hard_tanh": "tanh", "tanh": "tanh",
    "sigmoid": "sigmoid", "mish": "silu", "hard_sigmoid": "sigmoid", "hard_silu": "silu", "log_sigmoid": "softplus",
    "softmax": "softmax", "_softmax": "softmax", "log_softmax": "softmax", "squareplus": "softplus", "soft_sign": "tanh",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of a value.

    `leaf` and `atoms`: the value is that parameter, its axes moved. `factor`: the parameter was multiplied by that number. `is_data`: it
    depends on the inputs. `pending`: it is the product of these sites, only linear operations since. `normed`: the same, normalised.
    `after`: the product behind a nonlinearity. `over`: a statistic of it. `compared`: a mask made of it. `upstream`: every site that the
    value depends on. `constant`: the number that was written in the program. `is_changed`: the parameter was multiplied by something
    computed, so that it acts with another scale than it has.
    """

    leaf: int | None = None
    atoms: Atoms | None = None
    factor: float = 1.0
    is_data: bool = False
    pending: Keys = NONE
    normed: Keys = NONE
    after: Keys = NONE
    over: Keys = NONE
    compared: Keys = NONE
    upstream: Keys = NONE
    constant: float | None = None
    is_one_hot: bool = False
    is_changed: bool = False


PLAIN = Label()


@dataclass(slots=True, kw_only=True)
class Site:
    """One equation in which a parameter meets an activation: its fans, and the events that followed in the order of the program.

    `key` is the equation's place. `units` is the axis of the product along which its outputs lie, `signal` the number of the operand that
    is no parameter, `branched` whether several axes are its outputs. `acts` are the places of the activations that its product went into,
    each with the operand's number there. `fed_by` are the sites whose products come in, `upstream` all that it depends on.
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
    events: list[Event] = field(default_factory=list)
    acts: dict[Key, tuple[int, Event]] = field(default_factory=dict)
    fed_by: Keys = NONE
    upstream: Keys = NONE


@dataclass(slots=True)
class Reading:
    """All sites of a program in its order; the parameters that are looked up; whether a logarithm is taken; whether anything is divided
    by a root of what the inputs make, as a normalisation does."""

    sites: dict[Key, Site] = field(default_factory=dict)
    looked_up: set[int] = field(default_factory=set)
    has_logarithm: bool = False
    normalises: bool = False

    def note(self, keys: Keys, event: Event) -> None:
        """Add an event to the sites of these places, once to each."""
        for key in keys:
            if event not in self.sites[key].events:
                self.sites[key].events.append(event)

    def is_last(self, site: Site) -> bool:
        """Whether no other site depends on it."""
        return not any(site.key in other.upstream for other in self.sites.values() if other.key != site.key)

    def follows(self, site: Site) -> Follows:
        """The nonlinearity behind a site's product, or what else becomes of it."""
        events: list[Follows] = [event for event in site.events if event not in _WEAK]
        first: Follows = events[0] if events else ""
        if first == "tanh" and {"square", "selfgate"} <= set(site.events):
            first = "gelu"
        if first == "sigmoid" and "selfgate" in site.events:
            first = "silu"
        if self.is_last(site) and first not in _CURVES:
            return "output"
        return first or ("kernel" if "kernel" in site.events else "gate" if "gate" in site.events else "output")


# Events that may come before the one that says what a product is for, or beside it.
_WEAK: Final = ("sum", "square", "selfgate", "kernel", "output", "gate")
# Nonlinearities, which tell more of a last site than that it is the last.
_CURVES = ("relu", "leaky_relu", "tanh", "gelu", "silu", "softplus", "elu", "selu", "sin")


def read(jaxpr: compat.Jaxpr, consts: Sequence[Array], parameters: Sequence[int]) -> Reading:
    """Read a closed program whose first arguments are the leaves `parameters`; the others, and arrays that it closes over, are inputs."""
    reading = Reading()
    labels = [_parameter(var, leaf) for var, leaf in zip(jaxpr.invars, parameters, strict=False)]
    labels += [Label(is_data=True)] * (len(jaxpr.invars) - len(labels))
    outs = _walk(reading, jaxpr, consts, labels, ())
    for label in outs:
        reading.note(label.pending, "output")
    return reading


def _parameter(var: compat.Var, leaf: int) -> Label:
    return Label(leaf=leaf, atoms=tuple(((axis, size),) for axis, size in enumerate(compat.aval(var).shape)))


def _constant(value: Array) -> Label:
    if np.size(value) == 1 and not hasattr(value, "aval"):
        return Label(constant=_number(value))
    return Label(is_data=np.size(value) > 1)


def _number(value: object) -> float | None:
    try:
        return float(np.asarray(value).reshape(-1)[0])
    except (TypeError, ValueError):
        return None


def _walk(reading: Reading, jaxpr: compat.Jaxpr, consts: Sequence[Array], args: Sequence[Label], path: Key) -> list[Label]:
    """The labels of a jaxpr's outputs, from those of its arguments; its sites are entered in the reading on the way."""
    env: dict[compat.Var, Label] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(_constant, consts), *args], strict=True))

    def labelled(atom: compat.Atom) -> Label:
        return Label(constant=_number(atom.val)) if isinstance(atom, compat.Literal) else env.get(atom, PLAIN)

    for number, eqn in enumerate(jaxpr.eqns):
        ins = [labelled(atom) for atom in eqn.invars]
        outs = RULES.get(eqn.primitive.name, _nested)(LabelledEquation(reading, eqn, ins, (*path, number)))
        env.update(zip(eqn.outvars, outs, strict=True))
    return [labelled(atom) for atom in jaxpr.outvars]


@dataclass(frozen=True, slots=True)
class LabelledEquation:
    """One equation at its place, with the labels of its operands."""

    reading: Reading
    eqn: compat.JaxprEqn
    ins: Sequence[Label]
    key: Key

    @property
    def name(self) -> str:
        return self.eqn.primitive.name

    def outs(self, label: Label) -> list[Label]:
        """One label for all outputs."""
        return [label] * len(self.eqn.outvars)

    def shape(self, operand: int) -> tuple[int, ...]:
        return tuple(compat.aval(self.eqn.invars[operand]).shape)


Rule = Callable[[LabelledEquation], list[Label]]
# What an equation does to labels, by the name of its primitive. Importing `audit.rules` fills it.
RULES: Registry[str, Rule] = Registry()


def union(sets: Iterable[Keys]) -> Keys:
    """Every place that is in one of the sets."""
    return NONE.union(*sets)


def merged(labels: Sequence[Label]) -> Label:
    """What is known of a value that is made of values with these labels, whatever makes it."""
    return Label(
        is_data=any(label.is_data for label in labels),
        pending=union(label.pending for label in labels),
        normed=union(label.normed for label in labels),
        after=union(label.after for label in labels),
        over=union(label.over for label in labels),
        compared=union(label.compared for label in labels),
        upstream=union(label.upstream for label in labels),
    )


def activated(equation: LabelledEquation, event: Event) -> list[Label]:
    """The labels of what an equation makes that is a nonlinearity of all that is pending in it."""
    pending = union(label.pending for label in equation.ins)
    equation.reading.note(pending, event)
    for operand, label in enumerate(equation.ins):
        for key in label.pending | label.normed:
            equation.reading.sites[key].acts.setdefault(equation.key, (operand, event))
    out = merged(equation.ins)
    return equation.outs(replace(out, pending=NONE, normed=NONE, after=out.after | pending))


def _nested(equation: LabelledEquation) -> list[Label]:
    """An equation without a rule: entered where it carries one jaxpr over its operands, else taken for a nonlinearity."""
    subs = compat.sub_jaxprs(equation.eqn)
    inner = compat.open_jaxpr(subs[0][1]) if len(subs) == 1 else None
    name = str(equation.eqn.params.get("name") or getattr(getattr(inner and inner[0], "debug_info", None), "func_name", ""))
    if name in ACTIVATIONS and any(label.pending for label in equation.ins):
        equation.reading.has_logarithm |= "log" in name or name == "softplus"
        return activated(equation, ACTIVATIONS[name])
    if inner and len(inner[0].invars) == len(equation.ins) and len(inner[0].outvars) == len(equation.eqn.outvars):
        return _walk(equation.reading, *inner, equation.ins, equation.key)
    return activated(equation, "other")


@RULES.rule("scan")
def _scan(equation: LabelledEquation) -> list[Label]:
    jaxpr, consts = compat.open_jaxpr(equation.eqn.params["jaxpr"])
    fixed, carried = compat.scan_parts(equation.eqn)
    rows = [_without_first_axis(label) for label in equation.ins[fixed + carried :]]
    carry = equation.ins[fixed : fixed + carried]
    outs: list[Label] = []
    # A second round: what an iteration hands on is known only after the first.
    for _ in range(2):
        outs = _walk(equation.reading, jaxpr, consts, [*equation.ins[:fixed], *carry, *rows], equation.key)
        carry = [_joined(before, after) for before, after in zip(carry, outs[:carried], strict=True)]
    return [*carry, *outs[carried:]]


@RULES.rule("while")
def _while(equation: LabelledEquation) -> list[Label]:
    params = equation.eqn.params
    jaxpr, consts = compat.open_jaxpr(params["body_jaxpr"])
    start = params["cond_nconsts"]
    fixed = equation.ins[start : start + params["body_nconsts"]]
    carry = equation.ins[start + params["body_nconsts"] :]
    for _ in range(2):
        outs = _walk(equation.reading, jaxpr, consts, [*fixed, *carry], equation.key)
        carry = [_joined(before, after) for before, after in zip(carry, outs, strict=True)]
    return list(carry)


@RULES.rule("cond")
def _cond(equation: LabelledEquation) -> list[Label]:
    branches: list[list[Label]] = []
    for slot, branch in enumerate(equation.eqn.params["branches"]):
        jaxpr, consts = compat.open_jaxpr(branch)
        branches.append(_walk(equation.reading, jaxpr, consts, equation.ins[1:], (*equation.key, slot)))
    return [merged(labels) for labels in zip(*branches, strict=True)]


def _without_first_axis(label: Label) -> Label:
    return replace(label, atoms=label.atoms[1:]) if label.atoms else label


def _joined(before: Label, after: Label) -> Label:
    """What is known of a carried value before and after an iteration alike."""
    if before.leaf is not None and before == after:
        return before
    return replace(merged([before, after]), leaf=before.leaf, atoms=before.atoms)


def product(label: Label, axes: Sequence[int]) -> int:
    """How many weights lie along axes of a parameter: of the whole parameter, where the label is that of a slice."""
    assert label.atoms is not None
    return math.prod(size for axis in axes for _, size in label.atoms[axis])
