"""Which pass each equation of a traced step belongs to: the forward pass, the backward pass or the update.

JAX writes into an equation's name stack what differentiation made it: `transpose(...)` for what pulls cotangents back, `jvp(...)` for
everything else under a differentiation. That does not settle it. The derivative's coefficients (the `0.5 / sqrt(x)` of a square root) are
tagged `jvp(...)` like the forward pass itself, and what computes the loss before differentiation, or the update after it, has no tag at
all. So the phase follows from the tags and from where values go:

- tagged `transpose`: backward;
- tagged `jvp`: forward if its value reaches a result of the step without passing a transposed equation, as a loss does; else it is a
  coefficient, which only transposed equations read: backward;
- no tag: update if it depends on a transposed equation; forward if it feeds something tagged or depends on it; else update.

Under several differentiations (a Hessian) the tags of one level decide, the outermost that transposes: an inner gradient that a loss is
made of is forward to the outer one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias, TypeVar

from nandetect import compat, primitives
from nandetect.records import Phase

T = TypeVar("T")

# An equation's number in the program; within it, the number of its inner jaxpr, the equation's number in that, and so on.
Path: TypeAlias = tuple[int, ...]
# What differentiation made an equation, at the level that decides; empty for what it did not make.
Tag = Literal["transpose", "jvp", ""]
# Where a value goes: `result` if it reaches one of the step's without passing a transposed equation, `derivative` if it feeds a tagged one.
Goal = Literal["result", "derivative"]
Goals: TypeAlias = frozenset[Goal]
Tags: TypeAlias = frozenset[Tag]

DEEPEST = 4
_DIFFERENTIATION = re.compile(r"\b(transpose|jvp)\(")
_NOWHERE: Goals = frozenset()
_RESULT: Goals = frozenset({"result"})
_DERIVATIVE: Goals = frozenset({"derivative"})
_NO_TAGS: Tags = frozenset()


def _union(sets: Iterable[frozenset[T]]) -> frozenset[T]:
    empty: frozenset[T] = frozenset()
    return empty.union(*sets)


class Phases:
    """The phase of every equation of a program, by its path. A program that is not differentiated is forward throughout."""

    def __init__(self, program: compat.AnyJaxpr):
        jaxpr, _ = compat.open_jaxpr(program)
        self._phases: dict[Path, Phase] = {}
        level, tags = 0, _tags(jaxpr, (), "", 0)
        # The outermost level that transposes decides: a Hessian is `jvp(transpose(...))`, and its first level transposes nothing.
        while level + 1 < DEEPEST and "transpose" not in tags.values() and "jvp" in tags.values():
            level += 1
            tags = _tags(jaxpr, (), "", level)
        self.differentiates = "transpose" in tags.values()
        if self.differentiates:
            goals = _goals(jaxpr, tags, dead_ends=level == 0)
            self._phases = _phases(jaxpr, tags, goals)

    def of(self, path: Sequence[int]) -> Phase:
        """The phase of the equation at `path`."""
        return self._phases.get(tuple(path), "forward")


def _tags(jaxpr: compat.Jaxpr, path: Path, outer: str, level: int) -> dict[Path, Tag]:
    """The tag of each equation at a level of differentiation, the outermost being 0; `outer` is the name stack of those that enclose."""
    tags: dict[Path, Tag] = {}
    for number, eqn in enumerate(jaxpr.eqns):
        own_path = (*path, number)
        stack = f"{outer}/{compat.name_stack(eqn)}"
        levels = _DIFFERENTIATION.findall(stack)
        tags[own_path] = levels[level] if level < len(levels) else ""
        for slot, (_, inner) in enumerate(compat.sub_jaxprs(eqn)):
            tags |= _tags(compat.open_jaxpr(inner)[0], (*own_path, slot), stack, level)
    return tags


def _goals(jaxpr: compat.Jaxpr, tags: dict[Path, Tag], dead_ends: bool) -> dict[Path, Goals]:
    """Where the value of each equation goes. With `dead_ends`, what the forward pass computes for nobody counts as a result."""
    sweep = _Goals(tags, dead_ends)
    sweep.into(jaxpr, (), [_RESULT] * len(jaxpr.outvars))
    return sweep.goals


class _Goals:
    """A sweep from the results back over all nested jaxprs."""

    def __init__(self, tags: dict[Path, Tag], dead_ends: bool):
        self.tags, self.dead_ends = tags, dead_ends
        self.goals: dict[Path, Goals] = {}

    def into(self, jaxpr: compat.Jaxpr, path: Path, results: Sequence[Goals]) -> list[Goals]:
        """Where the inputs of a jaxpr go, by where its results do."""
        goals: dict[compat.Var, Goals] = {}

        def add(atom: compat.Atom, more: Goals) -> None:
            if not isinstance(atom, compat.Literal):
                goals[atom] = goals.get(atom, _NOWHERE) | more

        for var, goal in zip(jaxpr.outvars, results, strict=True):
            add(var, goal)
        for number in reversed(range(len(jaxpr.eqns))):
            eqn = jaxpr.eqns[number]
            operands = self._operands(eqn, (*path, number), [goals.get(var, _NOWHERE) for var in eqn.outvars])
            for atom, goal in zip(eqn.invars, operands, strict=True):
                add(atom, goal)
        return [goals.get(var, _NOWHERE) for var in jaxpr.invars]

    def _operands(self, eqn: compat.JaxprEqn, path: Path, outs: list[Goals]) -> list[Goals]:
        """Where the operands of an equation go, by where its values do."""
        tag = self.tags[path]
        inner = [compat.open_jaxpr(sub)[0] for _, sub in compat.sub_jaxprs(eqn)]
        if self.dead_ends and tag == "jvp" and (inner or not any(outs)):
            # Forward work may end in a value that nobody returns: a plain `grad` drops its loss, a loop its losses. It counts as a result.
            # Not so where `dead_ends` is off: under a second differentiation, tangents end so too.
            outs = [goal or _RESULT for goal in outs]
        self.goals[path] = _union(outs)
        through = self._through(eqn, path, inner, outs) if inner else [self.goals[path]] * len(eqn.invars)
        tagged = _DERIVATIVE if tag else _NOWHERE
        return [tagged if tag == "transpose" else goal | tagged for goal in through]

    def _through(self, eqn: compat.JaxprEqn, path: Path, inner: list[compat.Jaxpr], outs: list[Goals]) -> list[Goals]:
        """Where the operands of an equation go that has jaxprs within, through those."""
        every = _union(outs)
        # The index of a branch decides all that the branches give.
        operands = [every if len(inner) > 1 and number == 0 else _NOWHERE for number in range(len(eqn.invars))]
        for slot, jaxpr in enumerate(inner):
            aligned = len(jaxpr.outvars) == len(outs)
            results = list(outs) if aligned else [every] * len(jaxpr.outvars)
            inputs = self.into(jaxpr, (*path, slot), results)
            if aligned and primitives.of(eqn).loops:
                inputs = self._carried(eqn, jaxpr, (*path, slot), results, inputs)
            # A jaxpr takes the last operands; before them stand those of the other jaxprs, or a branch's index.
            skipped = len(eqn.invars) - len(inputs)
            if skipped >= 0:
                operands = [*operands[:skipped], *(old | new for old, new in zip(operands[skipped:], inputs, strict=True))]
            else:
                operands = [old | _union(inputs) for old in operands]
        # Every operand of a `while` or a `shard_map` may reach each of its results: those of a `while` decide how often it runs.
        return [goal | every for goal in operands] if primitives.of(eqn).spreads else operands

    def _carried(self, eqn: compat.JaxprEqn, body: compat.Jaxpr, path: Path, results: list[Goals], inputs: list[Goals]) -> list[Goals]:
        """Where the inputs of a loop's body go over all iterations: what is carried goes on to where the next iteration takes it."""
        if eqn.primitive.name == "scan":
            first, carried = compat.scan_parts(eqn)
        else:
            first, carried = eqn.params["body_nconsts"], len(results)
        while True:
            grown = [goal | inputs[first + slot] if slot < carried else goal for slot, goal in enumerate(results)]
            if grown == results:
                return inputs
            results = grown
            inputs = self.into(body, path, results)


def _phases(jaxpr: compat.Jaxpr, tags: dict[Path, Tag], goals: dict[Path, Goals]) -> dict[Path, Phase]:
    """The phase of each equation, in a sweep from the arguments on over all nested jaxprs."""
    phases: dict[Path, Phase] = {}

    def sweep(jaxpr: compat.Jaxpr, path: Path, inputs: Sequence[Tags]) -> list[Tags]:
        """The tags of the equations that the results of a jaxpr depend on, by those that its inputs do."""
        depends: dict[compat.Var, Tags] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: compat.Atom) -> Tags:
            return _NO_TAGS if isinstance(atom, compat.Literal) else depends.get(atom, _NO_TAGS)

        for number, eqn in enumerate(jaxpr.eqns):
            own_path = (*path, number)
            operands = [read(atom) for atom in eqn.invars]
            phases[own_path] = _phase(tags[own_path], goals.get(own_path, _NOWHERE), _union(operands))
            for var, depending in zip(eqn.outvars, _results(eqn, own_path, tags[own_path], operands, sweep), strict=True):
                depends[var] = depending
        return [read(var) for var in jaxpr.outvars]

    sweep(jaxpr, (), [_NO_TAGS] * len(jaxpr.invars))
    return phases


def _results(
    eqn: compat.JaxprEqn,
    path: Path,
    tag: Tag,
    operands: list[Tags],
    sweep: Callable[[compat.Jaxpr, Path, Sequence[Tags]], list[Tags]],
) -> list[Tags]:
    """The tags that the values of an equation depend on: its own, those of its operands, and those of the equations within it."""
    every = _union(operands)
    own: Tags = frozenset({tag}) if tag else _NO_TAGS
    results = [every | own] * len(eqn.outvars)
    for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
        inner, _ = compat.open_jaxpr(sub)
        skipped = len(operands) - len(inner.invars)
        # A loop's body is swept once: an update that the carry brings back from the iteration before makes no loss an update.
        within = sweep(inner, (*path, slot), operands[skipped:] if skipped >= 0 else [every] * len(inner.invars))
        if len(within) != len(results):
            continue
        # The first jaxpr tells of each result what it depends on; where several may run (branches), each adds to that.
        is_first = slot == 0 and not tag
        results = within if is_first else [old | new for old, new in zip(results, within, strict=True)]
    return results


def _phase(tag: Tag, goals: Goals, depends: Tags) -> Phase:
    """The phase of an equation, by its tag, where its value goes, and the tags of what it depends on."""
    if tag == "transpose":
        return "backward"
    if tag == "jvp":
        return "forward" if "result" in goals else "backward"
    if "transpose" in depends:
        return "update"
    return "forward" if "derivative" in goals or "jvp" in depends else "update"
