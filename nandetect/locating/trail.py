"""The way back from a symptom: through the equations that really carried its non-finite elements, to where they were born.

Elements are followed, not arrays: a mask that holds -inf, the branch that a `where` drops and a finished lane of a vmapped loop touch no
element of the symptom, so they are never reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nandetect import compat, nonfinite
from nandetect.interpret import shards
from nandetect.interpret.dependence import Flow, flows
from nandetect.interpret.movement import MOVES
from nandetect.interpret.walk import LOOPS, Run
from nandetect.locating import loops
from nandetect.locating.tracked import Use, Wanted, merge
from nandetect.nonfinite import Mask

COPIES = frozenset(MOVES) | {
    *("gather", "scatter", "max", "min", "reduce_max", "reduce_min", "cummax", "cummin", "sort", "top_k", "clamp"),
    *("scatter-max", "scatter-min", "scatter_max", "scatter_min"),
    *("convert_element_type", "reduce_precision", "device_put", "psum_invariant", "all_gather", "ppermute", "pmax", "pmin"),
}
SHIFTS = frozenset({"add", "sub", "neg", "add_any"})
# In a product an inf is a fault beside a NaN: with the NaN mended, it would still meet the zero that made the other.
PRODUCTS = frozenset({"mul", "div", "dot_general", "conv_general_dilated"})


@dataclass(frozen=True)
class Node:
    """One equation in one run of its jaxpr."""

    run: Run
    number: int

    @property
    def eqn(self) -> Any:
        return self.run.jaxpr.eqns[self.number]

    @property
    def order(self) -> tuple[int, ...]:
        """Comparable run-time order: (equation, iteration, equation, ...)."""
        return (*self.run.order, self.number)

    @property
    def path(self) -> tuple[int, ...]:
        return (*self.run.path, self.number)

    def __hash__(self) -> int:
        return hash((id(self.run), self.number))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.run is other.run and self.number == other.number


@dataclass(frozen=True, eq=False)
class Birth:
    """Elements of one output of an equation that became non-finite there."""

    node: Node
    output: int
    mask: Mask


@dataclass(frozen=True)
class Arrival:
    """Non-finite elements that were there before the step began: in an argument, a constant, or a literal of the program."""

    atom: Any
    mask: Mask
    use: Use
    node: Node | None
    run: Run

    @property
    def value(self) -> Any:
        """What arrived, whole."""
        return self.run.read(self.atom)


@dataclass
class Trail:
    """What was reached from the symptoms followed so far."""

    births: list[Birth] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    literals: list[Arrival] = field(default_factory=list)
    links: dict[Node, Node | None] = field(default_factory=dict)
    asked: dict[Node, dict[int, Mask]] = field(default_factory=dict)
    replayed: dict[Any, Any] = field(default_factory=dict)
    unfollowed: list[tuple[Node, int, Wanted]] = field(default_factory=list)
    compiled_only: bool = False

    def symptom(self, top: Run, atom: Any) -> None:
        """Follow every non-finite element of an output of the program back to where it came from."""
        mask = nonfinite.bad(top.read(atom))
        if isinstance(atom, compat.Literal):
            self.literals.append(Arrival(atom, mask, Use.MOVED, None, top))
            return
        given = self.follow(top, {atom: {Use.MOVED: mask}}, {atom: None})
        for var, (wanted, asker) in given.items():
            self.arrivals += [Arrival(var, found, use, asker, top) for use, found in wanted.items()]
        if not self.births and not self.arrivals:
            self.births += [Birth(node, output, mask) for node, output, wanted in self.unfollowed for mask in wanted.values()]

    def add(self, other: Trail) -> None:
        """Take over what another trail reached; of two ways from an equation, the one that was there first stays."""
        self.births += other.births
        self.arrivals += other.arrivals
        self.literals += other.literals
        self.ways(other)
        self.compiled_only |= other.compiled_only

    def ways(self, other: Trail) -> None:
        """Take over another trail's ways alone."""
        self.links = {**other.links, **self.links}
        self.asked = {**other.asked, **self.asked}

    def follow(self, run: Run, wanted: dict[Any, Wanted], askers: dict[Any, Node | None]) -> dict[Any, tuple[Wanted, Node | None]]:
        """Follow the wanted elements back through one run; what is left stood in its arguments and constants."""
        for number in reversed(range(run.done)):
            eqn = run.jaxpr.eqns[number]
            asked = {output: wanted.pop(var) for output, var in enumerate(eqn.outvars) if var in wanted}
            if not asked:
                continue
            node = Node(run, number)
            asker = next(askers[eqn.outvars[output]] for output in asked)
            self.links.setdefault(node, asker)
            self.asked[node] = {output: np.logical_or.reduce(list(found.values())) for output, found in asked.items()}
            for slot, found, by in self._back(node, asked, asker):
                atom = eqn.invars[slot]
                if isinstance(atom, compat.Literal):
                    self.literals += [Arrival(atom, mask, use, by, run) for use, mask in found.items()]
                    continue
                merge(wanted.setdefault(atom, {}), found)
                askers.setdefault(atom, by)
        return {var: (wanted[var], askers[var]) for var in wanted}

    def upward(self, run: Run, wanted: dict[Any, Wanted], asker: Node | None) -> None:
        """Follow elements back through a run and, where they came into it through a call, through the runs around it."""
        left = self.follow(run, wanted, dict.fromkeys(wanted, asker))
        if run.parent is None or not run.operands:
            return
        place = dict(zip(run.jaxpr.invars, run.operands, strict=True))
        outer = [(run.eqns[-1].invars[place[var]], found) for var, (found, _) in left.items() if var in place]
        self.upward(run.parent, {atom: found for atom, found in outer if not isinstance(atom, compat.Literal)}, asker)

    def _back(self, node: Node, asked: dict[int, Wanted], asker: Node | None) -> Iterable[tuple[int, Wanted, Node | None]]:
        """The elements of an equation's operands that its asked-for elements came from: (operand, elements, who asks)."""
        child = node.run.inner.get(node.number)
        if child is not None:
            return self._into(child, asked, asker)
        if node.eqn.primitive.name == "shard_map" and shards.can_enter(node.eqn):
            return self._into_shards(node, asked, asker)
        if node.eqn.primitive.name in LOOPS and not node.run.shards:
            found = loops.follow(self, node, asked, asker)
            if found is not None:
                return found
        return [
            (slot, found, node)
            for output, wanted in asked.items()
            for use, mask in wanted.items()
            for slot, found in self._through(node, output, use, mask)
        ]

    def _into(self, child: Run, asked: dict[int, Wanted], asker: Node | None) -> Iterable[tuple[int, Wanted, Node | None]]:
        wanted: dict[Any, Wanted] = {}
        for output, found in asked.items():
            atom = child.jaxpr.outvars[output]
            if isinstance(atom, compat.Literal):
                self.literals += [Arrival(atom, mask, use, asker, child) for use, mask in found.items()]
            else:
                merge(wanted.setdefault(atom, {}), found)
        left = self.follow(child, wanted, dict.fromkeys(wanted, asker))
        place = dict(zip(child.jaxpr.invars, child.operands, strict=True))
        for var, (found, by) in left.items():
            if var not in place:
                self.constant(child, var, found, by)
        return [(place[var], found, by) for var, (found, by) in left.items() if var in place]

    def constant(self, run: Run, var: Any, found: Wanted, by: Node | None) -> None:
        """Elements that stood in a constant which a jaxpr closes over."""
        self.arrivals += [Arrival(var, mask, use, by, run) for use, mask in found.items()]

    def _into_shards(self, node: Node, asked: dict[int, Wanted], asker: Node | None) -> Iterable[tuple[int, Wanted, Node | None]]:
        eqn, key = node.eqn, (id(node.run), node.number)
        if key not in self.replayed:
            self.replayed[key] = shards.opened(node.run, node.number)
        stacked = {output: {use: shards.split(eqn, mask, output) for use, mask in found.items()} for output, found in asked.items()}
        left = self._into(self.replayed[key], stacked, asker)
        return [(slot, {use: shards.join(eqn, mask, slot) for use, mask in found.items()}, by) for slot, found, by in left]

    def _through(self, node: Node, output: int, use: Use, mask: Mask) -> Iterable[tuple[int, Wanted]]:
        """One equation run as it stands: NaN comes from NaN before inf, inf from inf, and what comes from neither is born here."""
        run, eqn = node.run, node.eqn
        if not run.knows(eqn.outvars[output]):
            return []
        value = run.read(eqn.outvars[output])
        mask = mask & nonfinite.bad(value)
        if not mask.any():
            return []
        if not all(run.knows(atom) for atom in eqn.invars):
            return []
        ins = run.ins(eqn)
        broken = {slot: nonfinite.nans(x) for slot, x in enumerate(ins) if nonfinite.is_inexact(x) and not nonfinite.is_clean(x)}
        if not broken:
            self.births.append(Birth(node, output, mask))
            return []
        paths = [flow for flow in flows_of(run, eqn, ins, output) if flow.slot in broken]
        infinite = {slot: nonfinite.bad(ins[slot]) & ~nan for slot, nan in broken.items()}
        none = np.zeros(mask.shape, bool)
        has_nan = mask & np.logical_or.reduce([none, *(flow.push(broken[flow.slot]) for flow in paths)])
        has_inf = mask & np.logical_or.reduce([none, *(flow.push(infinite[flow.slot]) for flow in paths)])
        from_nan = has_nan & (nonfinite.nans(value) | ~has_inf)
        rest = mask & ~from_nan
        from_inf = rest & has_inf
        born = (rest & ~from_inf) | (from_inf & nonfinite.nans(value))
        if born.any():
            self.births.append(Birth(node, output, born))
        name = eqn.primitive.name
        onward = use if name in COPIES else max(use, Use.SHIFTED) if name in SHIFTS else Use.COMPUTED
        found: list[tuple[int, Wanted]] = []
        for flow in paths:
            carried = nonfinite.bad(ins[flow.slot]) if name in PRODUCTS else broken[flow.slot]
            nan = flow.pull(from_nan) & carried if from_nan.any() else none
            if nan.any():
                found.append((flow.slot, {onward: nan}))
            became_nan = from_inf & nonfinite.nans(value)
            for part, after in ((from_inf & ~became_nan, onward), (became_nan, Use.COMPUTED)):
                inf = flow.pull(part) & infinite[flow.slot] if part.any() else none
                if inf.any():
                    found.append((flow.slot, {after: inf}))
        return found

    def chain(self, node: Node) -> list[Node]:
        """The equations that carried what was born at `node` to the symptom, in that order."""
        found, step = [], node
        while step is not None and step not in found:
            found.append(step)
            step = self.links.get(step)
        return found


def flows_of(run: Run, eqn: Any, ins: Sequence[Any], output: int) -> list[Flow]:
    """The flows of an equation in a run, over stacked values where the run is inside a `shard_map`."""
    return shards.stacked_flows(eqn, ins, output, run.shards) if run.shards else flows(eqn, ins, output)
