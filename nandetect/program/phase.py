"""Which pass an equation belongs to: forward, backward or update, decided by dataflow and not by the name stack alone.

JAX tags what a transposition made with `transpose(...)`, but tags the derivative's coefficients (`0.5 / sqrt(x)`) only `jvp(...)`, like
the forward pass itself. What tells them apart is where their values go: a coefficient feeds transposed equations and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nandetect import compat
from nandetect.records import Phase

Path = tuple[int, ...]
DEEPEST = 4
_DIFFERENTIATION = re.compile(r"\b(transpose|jvp)\(")


class Phases:
    """The phase of every equation of a program, by its path: the equation's number in each enclosing jaxpr, outermost first."""

    def __init__(self, jaxpr: Any):
        self._kinds: dict[Path, str] = {}
        self._phases: dict[Path, Phase] = {}
        jaxpr, _ = compat.open_jaxpr(jaxpr)
        level = 0
        for level in range(DEEPEST):
            self._name(jaxpr, (), "", level)
            self.differentiates = "transpose" in self._kinds.values()
            # Where nothing is transposed at the outermost level (a Hessian is `jvp(transpose(...))`), the next one in decides.
            if self.differentiates or "jvp" not in self._kinds.values():
                break
        if self.differentiates:
            _Flow(self._kinds, self._phases, dead_ends=level == 0).run(jaxpr)

    def of(self, path: Sequence[int]) -> Phase:
        """The phase of the equation at `path`."""
        return self._phases.get(tuple(path), "forward")

    def _name(self, jaxpr: Any, path: Path, outer: str, level: int) -> None:
        for number, eqn in enumerate(jaxpr.eqns):
            here = (*path, number)
            # The outermost differentiation decides: an inner gradient that a loss is made of is forward to the outer one.
            stack = f"{outer}/{compat.name_stack(eqn)}"
            found = _DIFFERENTIATION.findall(stack)
            self._kinds[here] = found[level] if level < len(found) else ""
            for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
                self._name(compat.open_jaxpr(sub)[0], (*here, slot), stack, level)


class _Flow:
    """One backward sweep (where values go) and one forward sweep (what they depend on) over all nested jaxprs.

    Where a value goes is a set of marks: `out` (it reaches an output, or a dead end of the forward pass, without passing a transposed
    equation: only the forward pass does) and `loss` (it feeds something that differentiation tagged).
    """

    def __init__(self, kinds: dict[Path, str], phases: dict[Path, Phase], dead_ends: bool):
        # Under a second differentiation the dead ends are those of tangents too.
        self.kinds, self.phases, self.dead_ends = kinds, phases, dead_ends
        self.goes: dict[Path, frozenset[str]] = {}

    def run(self, jaxpr: Any) -> None:
        self._backward(jaxpr, (), [frozenset({"out"})] * len(jaxpr.outvars))
        self._forward(jaxpr, (), [frozenset()] * len(jaxpr.invars))

    def _backward(self, jaxpr: Any, path: Path, outs: Sequence[frozenset[str]]) -> list[frozenset[str]]:
        marks: dict[Any, frozenset[str]] = {}

        def add(atom: Any, new: frozenset[str]) -> None:
            if not isinstance(atom, compat.Literal):
                marks[atom] = marks.get(atom, frozenset()) | new

        for var, new in zip(jaxpr.outvars, outs, strict=True):
            add(var, new)
        for number in reversed(range(len(jaxpr.eqns))):
            eqn, here = jaxpr.eqns[number], (*path, number)
            kind = self.kinds[here]
            given = [marks.get(var, frozenset()) for var in eqn.outvars]
            subs = compat.sub_jaxprs(eqn)
            if self.dead_ends and kind == "jvp" and (subs or not any(given)):
                # The loss of a plain `grad`, or of a loop whose losses nobody returns, is dropped: that is where the forward pass goes.
                given = [new or frozenset({"out"}) for new in given]
            ins = self._backward_into(eqn, here, subs, given) if subs else [frozenset().union(*given)] * len(eqn.invars)
            self.goes[here] = frozenset().union(*given)
            passed = frozenset({"loss"}) if kind == "transpose" else frozenset({"loss"} if kind else ())
            for atom, new in zip(eqn.invars, ins, strict=True):
                add(atom, passed if kind == "transpose" else new | passed)
        return [marks.get(var, frozenset()) for var in jaxpr.invars]

    def _backward_into(self, eqn: Any, here: Path, subs: list[tuple[str, Any]], outs: list[frozenset[str]]) -> list[frozenset[str]]:
        every = frozenset().union(*outs)
        ins = [frozenset()] * len(eqn.invars)
        for slot, (_, sub) in enumerate(subs):
            inner, _ = compat.open_jaxpr(sub)
            aligned = len(inner.outvars) == len(outs)
            given = list(outs) if aligned else [every] * len(inner.outvars)
            into = self._backward(inner, (*here, slot), given)
            if eqn.primitive.name in ("scan", "while") and aligned:
                # A carried value goes where the next iteration takes it: repeat until nothing is added.
                first = compat.scan_parts(eqn)[0] if eqn.primitive.name == "scan" else eqn.params["body_nconsts"]
                carry = compat.scan_parts(eqn)[1] if eqn.primitive.name == "scan" else len(outs)
                while True:
                    grown = [old | into[first + i] if i < carry else old for i, old in enumerate(given)]
                    if grown == given:
                        break
                    given = grown
                    into = self._backward(inner, (*here, slot), given)
            offset = len(eqn.invars) - len(into)
            if offset >= 0:
                for position, new in enumerate(into):
                    ins[offset + position] = ins[offset + position] | new
            else:
                ins = [old | frozenset().union(*into) for old in ins]
        return [old | (every if eqn.primitive.name in ("while", "shard_map") else frozenset()) for old in ins]

    def _forward(self, jaxpr: Any, path: Path, ins: Sequence[frozenset[str]]) -> list[frozenset[str]]:
        depends: dict[Any, frozenset[str]] = dict(zip(jaxpr.invars, ins, strict=True))

        def read(atom: Any) -> frozenset[str]:
            return frozenset() if isinstance(atom, compat.Literal) else depends.get(atom, frozenset())

        for number, eqn in enumerate(jaxpr.eqns):
            here = (*path, number)
            kind = self.kinds[here]
            given = [read(atom) for atom in eqn.invars]
            every = frozenset().union(*given)
            self.phases[here] = self._phase(kind, self.goes.get(here, frozenset()), every)
            outs = [every | ({kind} if kind else set())] * len(eqn.outvars)
            for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
                inner, _ = compat.open_jaxpr(sub)
                offset = len(given) - len(inner.invars)
                # One iteration's view of a loop: what the carry brings back from the last iteration's update does not count.
                into = given[offset:] if offset >= 0 else [every] * len(inner.invars)
                result = self._forward(inner, (*here, slot), into)
                if len(result) == len(outs):
                    outs = [old | new for old, new in zip(outs, result, strict=True)] if slot or kind else result
            for var, new in zip(eqn.outvars, outs, strict=True):
                depends[var] = new
        return [read(var) for var in jaxpr.outvars]

    @staticmethod
    def _phase(kind: str, goes: frozenset[str], depends: frozenset[str]) -> Phase:
        if kind == "transpose":
            return "backward"
        if kind == "jvp":
            return "forward" if "out" in goes else "backward"
        if "transpose" in depends:
            return "update"
        return "forward" if "loss" in goes or "jvp" in depends else "update"
