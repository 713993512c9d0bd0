"""Derivatives in forward mode (`jvp`, `jacfwd`, the outer one of a Hessian), told from what they are derivatives of.

They are looked for where tagged equations hang together with no transposed one; a second trace then tells which compute a derivative.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nandetect import compat
from nandetect.program import primals
from nandetect.program.goals import NOWHERE, Goals, Path, Sweep, Tag

_DIFFERENTIATION = re.compile(r"\b(transpose|jvp)\(")


@dataclass(frozen=True)
class Apart:
    """The equations of a program that no reverse mode at the outermost level made, and which of the derivatives are in forward mode."""

    primals: frozenset[Path]
    derivatives: frozenset[Path]
    in_forward_mode: frozenset[Path]


def told(jaxpr: compat.Jaxpr, tags: Mapping[Path, Tag], retrace: Callable[[], compat.AnyJaxpr]) -> Apart | None:
    """The equations that hang together with no transposed one, by what they compute; None where there are none, or it is not known."""
    roots = _Islands(tags).alone(jaxpr)
    marks = counted(jaxpr, retrace) if roots else None
    if marks is None:
        return None
    found: dict[str, set[Path]] = {"primal": set(), "derivative": set(), "forward mode": set()}
    stacks = dict(_stacks(jaxpr, (), ""))
    reverse = any("transpose" in levels for levels in stacks.values())
    for path, levels in stacks.items():
        if not any(path[:length] in roots for length in range(1, len(path) + 1, 2)):
            continue
        if "transpose" not in levels and marks[path] >= len(levels):
            found["primal"].add(path)
            continue
        found["derivative"].add(path)
        if not marks[path] or not reverse:
            found["forward mode"].add(path)
    return Apart(*map(frozenset, found.values()))


def counted(jaxpr: compat.Jaxpr, retrace: Callable[[], compat.AnyJaxpr]) -> dict[Path, int] | None:
    """For each equation at how many levels of differentiation something that descends from it is no derivative; None where not known."""
    marked = primals.marked(retrace, jaxpr)
    if marked is None:
        return None
    sweep = _Marks({}, False)
    sweep.into(marked, (), [NOWHERE] * len(marked.outvars))
    return {before: _most(sweep.goals.get(path, NOWHERE)) for path, before in _paths(marked, (), ())}


class _Marks(Sweep):
    """A sweep that counts the marks which descend from each value, one on the other."""

    def operands(self, eqn: compat.JaxprEqn, path: Path, outs: list[Goals]) -> list[Goals]:
        """Where the operands of an equation go, by where its values do."""
        if not primals.is_mark(eqn):
            return super().operands(eqn, path, outs)
        return [outs[0] | {_most(outs[0]) + 1}]

    def carried(self, eqn: compat.JaxprEqn, body: compat.Jaxpr, path: Path, results: list[Goals], inputs: list[Goals]) -> list[Goals]:
        """Where the inputs of a loop's body go: what an iteration hands to the next is no less a derivative for what that makes of it."""
        return inputs


def _most(goals: Goals) -> int:
    return max((goal for goal in goals if isinstance(goal, int)), default=0)


def _paths(jaxpr: compat.Jaxpr, path: Path, before: Path) -> list[tuple[Path, Path]]:
    """The path of each equation in a program with marks, and the one that it has without."""
    found: list[tuple[Path, Path]] = []
    counted = 0
    for number, eqn in enumerate(jaxpr.eqns):
        if primals.is_mark(eqn):
            continue
        found.append(((*path, number), (*before, counted)))
        for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
            found += _paths(compat.open_jaxpr(sub)[0], (*path, number, slot), (*before, counted, slot))
        counted += 1
    return found


def _stacks(jaxpr: compat.Jaxpr, path: Path, outer: str) -> list[tuple[Path, list[str]]]:
    """The differentiations that each equation stands in, outermost first."""
    found: list[tuple[Path, list[str]]] = []
    for number, eqn in enumerate(jaxpr.eqns):
        own, stack = (*path, number), f"{outer}/{compat.name_stack(eqn)}"
        found.append((own, _DIFFERENTIATION.findall(stack)))
        for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
            found += _stacks(compat.open_jaxpr(sub)[0], (*own, slot), stack)
    return found


class _Islands:
    """Tagged equations by what they hang together with: each island is known by one of its equations."""

    def __init__(self, tags: Mapping[Path, Tag]):
        self._tags = tags
        self._parents: dict[Path, Path] = {}

    def alone(self, jaxpr: compat.Jaxpr) -> frozenset[Path]:
        """The tagged equations that hang together with no transposed one, without those inside of them."""
        self._enter(jaxpr, (), [None] * len(jaxpr.invars))
        reverse = {self._root(path) for path in self._parents if self._tags[path] == "transpose"}
        return frozenset(path for path in self._parents if self._root(path) not in reverse)

    def _root(self, path: Path) -> Path:
        while self._parents[path] != path:
            self._parents[path] = self._parents[self._parents[path]]
            path = self._parents[path]
        return path

    def _enter(self, jaxpr: compat.Jaxpr, path: Path, inputs: list[Path | None]) -> list[Path | None]:
        """The tagged equations that made the results of a jaxpr, by those that made its inputs; None for what none made."""
        made: dict[compat.Var, Path | None] = dict(zip(jaxpr.invars, inputs, strict=True))

        def maker(atom: compat.Atom) -> Path | None:
            return None if isinstance(atom, compat.Literal) else made.get(atom)

        for number, eqn in enumerate(jaxpr.eqns):
            own, operands = (*path, number), [maker(atom) for atom in eqn.invars]
            results: list[Path | None] = [None] * len(eqn.outvars)
            if self._tags[own]:
                self._join(own, operands)
                results = [own] * len(eqn.outvars)
            else:
                for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
                    inner, _ = compat.open_jaxpr(sub)
                    skipped = len(operands) - len(inner.invars)
                    within = self._enter(inner, (*own, slot), operands[skipped:] if skipped >= 0 else [None] * len(inner.invars))
                    results = within if len(within) == len(results) else results
            made |= zip(eqn.outvars, results, strict=True)
        return [maker(atom) for atom in jaxpr.outvars]

    def _join(self, own: Path, operands: list[Path | None]) -> None:
        self._parents[own] = own
        for operand in operands:
            # A gradient that is differentiated again is another differentiation's.
            if operand is not None and not (self._tags[operand] == "transpose" and self._tags[own] == "jvp"):
                self._parents[self._root(operand)] = self._root(own)
