"""Where the value of each equation goes: a sweep from the results back over all nested jaxprs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

from nandetect import compat, primitives

T = TypeVar("T")

# An equation's number in the program; within it, the number of its inner jaxpr, the equation's number in that, and so on.
Path: TypeAlias = tuple[int, ...]
# What differentiation made an equation, at the level that decides; empty for what it did not make.
Tag = Literal["transpose", "jvp", ""]
# Where a value goes: `result` if it reaches one of the step's without passing a transposed equation, `derivative` if it feeds a tagged one.
# A number if what descends from it is no derivative at so many levels of differentiation.
Goal: TypeAlias = Literal["result", "derivative"] | int
Goals: TypeAlias = frozenset[Goal]

NOWHERE: Goals = frozenset()
RESULT: Goals = frozenset({"result"})
DERIVATIVE: Goals = frozenset({"derivative"})


def union(sets: Iterable[frozenset[T]]) -> frozenset[T]:
    """The union of sets; the empty one of none."""
    empty: frozenset[T] = frozenset()
    return empty.union(*sets)


class Sweep:
    """A sweep from the results back over all nested jaxprs."""

    def __init__(self, tags: Mapping[Path, Tag], dead_ends: bool):
        self.tags, self.dead_ends = tags, dead_ends
        self.goals: dict[Path, Goals] = {}

    def into(self, jaxpr: compat.Jaxpr, path: Path, results: Sequence[Goals]) -> list[Goals]:
        """Where the inputs of a jaxpr go, by where its results do."""
        goals: dict[compat.Var, Goals] = {}

        def add(atom: compat.Atom, more: Goals) -> None:
            if not isinstance(atom, compat.Literal):
                goals[atom] = goals.get(atom, NOWHERE) | more

        for var, goal in zip(jaxpr.outvars, results, strict=True):
            add(var, goal)
        for number in reversed(range(len(jaxpr.eqns))):
            eqn = jaxpr.eqns[number]
            operands = self.operands(eqn, (*path, number), [goals.get(var, NOWHERE) for var in eqn.outvars])
            for atom, goal in zip(eqn.invars, operands, strict=True):
                add(atom, goal)
        return [goals.get(var, NOWHERE) for var in jaxpr.invars]

    def operands(self, eqn: compat.JaxprEqn, path: Path, outs: list[Goals]) -> list[Goals]:
        """Where the operands of an equation go, by where its values do."""
        tag = self.tags.get(path, "")
        inner = [compat.open_jaxpr(sub)[0] for _, sub in compat.sub_jaxprs(eqn)]
        if self.dead_ends and tag == "jvp" and (inner or not any(outs)):
            # Forward work may end in a value that nobody returns: a plain `grad` drops its loss, a loop its losses. It counts as a result.
            # Not so where `dead_ends` is off: under a second differentiation, tangents end so too.
            outs = [goal or RESULT for goal in outs]
        self.goals[path] = union(outs)
        through = self.through(eqn, path, inner, outs) if inner else [self.goals[path]] * len(eqn.invars)
        tagged = DERIVATIVE if tag else NOWHERE
        return [tagged if tag == "transpose" else goal | tagged for goal in through]

    def through(self, eqn: compat.JaxprEqn, path: Path, inner: list[compat.Jaxpr], outs: list[Goals]) -> list[Goals]:
        """Where the operands of an equation go that has jaxprs within, through those."""
        every = union(outs)
        # The index of a branch decides all that the branches give.
        operands = [every if len(inner) > 1 and number == 0 else NOWHERE for number in range(len(eqn.invars))]
        for slot, jaxpr in enumerate(inner):
            aligned = len(jaxpr.outvars) == len(outs)
            results = list(outs) if aligned else [every] * len(jaxpr.outvars)
            inputs = self.into(jaxpr, (*path, slot), results)
            if aligned and primitives.of(eqn).loops:
                inputs = self.carried(eqn, jaxpr, (*path, slot), results, inputs)
            # A jaxpr takes the last operands; before them stand those of the other jaxprs, or a branch's index.
            skipped = len(eqn.invars) - len(inputs)
            if skipped >= 0:
                operands = [*operands[:skipped], *(old | new for old, new in zip(operands[skipped:], inputs, strict=True))]
            else:
                operands = [old | union(inputs) for old in operands]
        # Every operand of a `while` or a `shard_map` may reach each of its results: those of a `while` decide how often it runs.
        return [goal | every for goal in operands] if primitives.of(eqn).spreads else operands

    def carried(self, eqn: compat.JaxprEqn, body: compat.Jaxpr, path: Path, results: list[Goals], inputs: list[Goals]) -> list[Goals]:
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
