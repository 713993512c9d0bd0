"""The way back from a symptom: through the equations that really carried its non-finite elements, to where they were born.

Elements are followed, not arrays: a mask that holds -inf, the branch that a `where` drops and a finished lane of a vmapped loop touch no
element of the symptom, so they are never reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import Atom, JaxprEqn, Var
from nandetect.interpret.loops import Loop
from nandetect.interpret.shards import flows_of
from nandetect.interpret.walk import Run
from nandetect.locating import log_space
from nandetect.locating.tracked import Asked, Wanted, merge
from nandetect.nonfinite import Mask
from nandetect.primitives import Use
from nandetect.registry import Registry


@dataclass(frozen=True)
class Node:
    """One equation in one run of its jaxpr."""

    run: Run
    number: int

    @property
    def eqn(self) -> JaxprEqn:
        """The equation."""
        return self.run.jaxpr.eqns[self.number]

    @property
    def order(self) -> tuple[int, ...]:
        """When the equation ran: (equation, iteration, equation, ...), to be compared."""
        return (*self.run.order, self.number)

    @property
    def path(self) -> tuple[int, ...]:
        """The numbers of the enclosing equations and its own, outermost first, as `Phases` and `Run.path` count."""
        return (*self.run.path, self.number)

    def output(self, var: Var) -> int:
        """Which of the equation's results a variable is."""
        return self.eqn.outvars.index(var)

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
    """Non-finite elements that were there before the step began: in an argument, a constant, or a literal of the program.

    `node` is the equation that took them up, `use` what was done with them from there to the symptom.
    """

    atom: Atom
    mask: Mask
    use: Use
    node: Node | None
    run: Run

    @property
    def value(self) -> Array:
        """What arrived, whole."""
        return self.run.read(self.atom)


@dataclass
class Trail:
    """What was reached from the symptoms followed so far.

    `links` leads from each equation on the way to the one, nearer to the symptom, that asked for its elements; `asked` holds those, by the
    number of the result. `unfollowed` are results of loops, with elements of theirs, that were given up. `met` are births of what met, on
    the way, another non-finite value that goes before it.
    """

    births: list[Birth] = field(default_factory=list)
    met: list[Birth] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    literals: list[Arrival] = field(default_factory=list)
    links: dict[Node, Node | None] = field(default_factory=dict)
    asked: dict[Node, dict[int, Mask]] = field(default_factory=dict)
    # Loops and sharded bodies that were opened on the way, by the run and the number of their equation; of a branch in such a body, each.
    loops: dict[tuple[int, int], Loop] = field(default_factory=dict)
    shards: dict[tuple[int, int], list[Run]] = field(default_factory=dict)
    unfollowed: list[tuple[Node, int, Wanted]] = field(default_factory=list)
    compiled_only: bool = False
    # Whether what is followed is -inf, which a log-probability may be.
    may_be_meant: bool = False

    def beside(self) -> Trail:
        """An empty trail that shares the loops and the shards that this one has opened."""
        return Trail(loops=self.loops, shards=self.shards)

    def symptom(self, top: Run, atom: Atom) -> None:
        """Follow every non-finite element of an output of the program back to where it came from."""
        mask = nonfinite.bad(top.read(atom))
        if isinstance(atom, compat.Literal):
            self.written(top, atom, {Use.MOVED: mask}, None)
            return
        # Of a loss that is inf nobody meant the -inf that it is made of.
        is_low = np.isneginf(np.real(nonfinite.host(top.read(atom))))
        for part, self.may_be_meant in ((mask & ~is_low, False), (mask & is_low, True)):
            given = self.follow(top, {atom: {Use.MOVED: part}}, {atom: None}) if part.any() else {}
            for var, (wanted, asker) in given.items():
                self.arrived(top, var, wanted, asker)
        if not self.births and not self.arrivals:
            self.births += [Birth(node, output, mask) for node, output, wanted in self.unfollowed for mask in wanted.values()]

    def add(self, other: Trail) -> None:
        """Take over what another trail reached, and its ways."""
        self.births += other.births
        self.met += other.met
        self.arrivals += other.arrivals
        self.literals += other.literals
        self.ways(other)
        self.compiled_only |= other.compiled_only

    def ways(self, other: Trail) -> None:
        """Take over another trail's ways alone; from an equation that both passed, this one's stays."""
        self.links = {**other.links, **self.links}
        self.asked = {**other.asked, **self.asked}

    def follow(self, run: Run, wanted: dict[Var, Wanted], askers: dict[Var, Node | None]) -> dict[Var, tuple[Wanted, Node | None]]:
        """Follow the wanted elements back through one run. `askers` are the equations that read them there; None for a symptom.

        Returns what is left: elements of the run's arguments and constants, each with the equation that asked for them.
        """
        for number in reversed(range(run.done)):
            eqn = run.jaxpr.eqns[number]
            asked = {output: wanted.pop(var) for output, var in enumerate(eqn.outvars) if var in wanted}
            if not asked:
                continue
            node = Node(run, number)
            asker = next(askers[eqn.outvars[output]] for output in asked)
            self.links.setdefault(node, asker)
            before = self.asked.setdefault(node, {})
            for output, elements in asked.items():
                before[output] = np.logical_or.reduce([*_masks(elements), *([before[output]] if output in before else [])])
            for slot, elements, reader in self._back(node, asked, asker):
                atom = eqn.invars[slot] if isinstance(slot, int) else slot
                if isinstance(atom, compat.Literal):
                    self.written(run, atom, elements, reader)
                    continue
                merge(wanted.setdefault(atom, {}), elements)
                askers.setdefault(atom, reader)
        return {var: (wanted[var], askers[var]) for var in wanted}

    def upward(self, run: Run, wanted: dict[Var, Wanted], asker: Node | None) -> None:
        """Follow elements back through a run and, where they came into it through a call, through the runs around it."""
        left = self.follow(run, wanted, dict.fromkeys(wanted, asker))
        outer = [(run.operand(var), elements) for var, (elements, _) in left.items()]
        outside = {atom: elements for atom, elements in outer if atom is not None and not isinstance(atom, compat.Literal)}
        if run.parent is not None and run.operands:
            self.upward(run.parent, outside, asker)

    def _back(self, node: Node, asked: Asked, asker: Node | None) -> Sequence[tuple[int | Var, Wanted, Node | None]]:
        """The elements of an equation's operands, or of a variable before them, that its asked-for elements came from."""
        led = RULES.get(node.eqn.primitive.name, RULES[ENTERED])(self, node, asked, asker)
        if led is not None:
            return led
        return [
            (slot, elements, node)
            for output, wanted in asked.items()
            for use, mask in wanted.items()
            for slot, elements in self._through(node, output, use, mask)
        ]

    def arrived(self, run: Run, var: Var, elements: Wanted, asker: Node | None) -> None:
        """Enter elements of an argument, or of a constant that a jaxpr closes over."""
        self.arrivals += [Arrival(var, mask, use, asker, run) for use, mask in elements.items() if use is not Use.MET]

    def written(self, run: Run, atom: compat.Literal, elements: Wanted, asker: Node | None) -> None:
        """Enter elements of a literal."""
        self.literals += [Arrival(atom, mask, use, asker, run) for use, mask in elements.items() if use is not Use.MET]

    def _through(self, node: Node, output: int, use: Use, mask: Mask) -> list[tuple[int | Var, Wanted]]:
        """Through an equation that ran whole, from bad elements of one result to those of its operands that they came from.

        A NaN came from NaN or else from inf, an inf from inf. What came from neither is born here, and entered as such. All else that is
        non-finite in the operands was met.
        """
        run, eqn = node.run, node.eqn
        if not run.knows(eqn.outvars[output]) or not run.knows_ins(eqn):
            return []
        value = run.read(eqn.outvars[output])
        mask = mask & nonfinite.bad(value)
        if not mask.any():
            return []
        ins = run.ins(eqn)
        broken = {slot: nonfinite.nans(x) for slot, x in enumerate(ins) if nonfinite.is_inexact(x) and not nonfinite.is_clean(x)}
        if not broken:
            return self._made(node, output, use, mask)
        paths = [flow for flow in flows_of(run, eqn, ins, output) if flow.slot in broken]
        infinite = {slot: nonfinite.bad(ins[slot]) & ~nan for slot, nan in broken.items()}
        none = np.zeros(mask.shape, bool)
        is_nan = nonfinite.nans(value)
        has_nan = mask & np.logical_or.reduce([none, *(flow.push(broken[flow.slot]) for flow in paths)])
        has_inf = mask & np.logical_or.reduce([none, *(flow.push(infinite[flow.slot]) for flow in paths)])
        born = nonfinite.born(mask, is_nan, has_nan, has_inf)
        led = self._made(node, output, use, born) if born.any() else []
        from_nan = has_nan & (is_nan | ~has_inf)
        from_inf = has_inf & ~from_nan
        primitive = primitives.of(eqn)
        onward = max(use, use_of(eqn))
        for flow in paths:
            # Operands of a product are followed to their infs beside their NaNs: with the NaN mended, an inf could still meet a zero.
            carried = nonfinite.bad(ins[flow.slot]) if primitive.multiplies else broken[flow.slot]
            followed = flow.pull(from_nan) & carried if from_nan.any() else np.zeros(np.shape(ins[flow.slot]), bool)
            if followed.any():
                led.append((flow.slot, {onward: followed}))
            for part, after in ((from_inf & ~is_nan, onward), (from_inf & is_nan, max(use, Use.COMPUTED))):
                inf = flow.pull(part) & infinite[flow.slot] if part.any() else none
                if inf.any():
                    led.append((flow.slot, {after: inf}))
                    followed = followed | inf
            met = flow.pull(mask) & nonfinite.bad(ins[flow.slot]) & ~followed
            if met.any():
                led.append((flow.slot, {Use.MET: met}))
        return led

    def _made(self, node: Node, output: int, use: Use, mask: Mask) -> list[tuple[int | Var, Wanted]]:
        """Enter elements that an equation made. Those that it gives back as they were meant lead on to what they were made of.

        Computed with, or in a symptom that is not -inf, they are a fault, which is told where the logarithm was taken.
        """
        run, eqn = node.run, node.eqn
        if is_neutral(eqn, run.read(eqn.outvars[output]), mask):
            # An inf that nothing was compared with is as good as written.
            self.literals += [Arrival(eqn.outvars[output], mask, use, node, run)] if use is not Use.MET else []
            return []
        passes = self.may_be_meant and use < Use.COMPUTED
        meant, exponents = log_space.meant(run, node.number, mask) if passes else (np.zeros(mask.shape, bool), {})
        born = mask & ~meant
        if born.any():
            (self.met if use is Use.MET else self.births).append(Birth(node, output, born))
        return [(var, {max(use, Use.SHIFTED): elements}) for var, elements in exponents.items()]

    def chain(self, node: Node) -> list[Node]:
        """The equations that carried what was born at `node` to the symptom, in that order."""
        passed: dict[Node, None] = {}
        step: Node | None = node
        while step is not None and step not in passed:
            passed[step] = None
            step = self.links.get(step)
        return list(passed)


# A step back from wanted elements: the operand of their equation, its elements that they came from, and the equation that reads those.
Led = tuple[int, Wanted, Node | None]
# A rule follows the asked-for elements of an equation's results back to its operands; None where it ran whole and its flows say all.
Rule = Callable[[Trail, Node, Asked, Node | None], list[Led] | None]
# Rules by the primitive's name; under `ENTERED` the one for all other primitives, which a walk may have entered.
RULES: Registry[str, Rule] = Registry()
ENTERED = "<entered>"


def is_neutral(eqn: JaxprEqn, value: Array, mask: Mask) -> bool:
    """Whether elements are what a maximum or a minimum gives where there is nothing to compare: it makes no inf of numbers."""
    return primitives.of(eqn).bounds and bool(np.isinf(nonfinite.host(value)[mask]).all())


def _masks(elements: Wanted) -> list[Mask]:
    """The masks of wanted elements; those that were only met where there are no others."""
    return [mask for use, mask in elements.items() if use is not Use.MET] or list(elements.values())


def use_of(eqn: JaxprEqn) -> Use:
    """What an equation does with the values of its operands; for a reduction by the user's function, what that function does."""
    own = primitives.of(eqn).use
    bodies = compat.sub_jaxprs(eqn) if primitives.of(eqn).reduces else []
    uses = [use_of(inner) for _, body in bodies for inner in compat.open_jaxpr(body)[0].eqns]
    return max(uses, default=Use.MOVED) if bodies else own
