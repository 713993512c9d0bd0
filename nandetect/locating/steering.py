"""What decided where a symptom comes from: a NaN that ended a loop, took a branch or made a selection upstream of a birth.

The way back from the birth goes through all that its operands were computed from, finite values, indices and predicates included. Where it
meets a comparison of NaN, that NaN's own birth is followed as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import Atom, JaxprEqn, Var
from nandetect.interpret import loops, walk
from nandetect.interpret.dependence import flows
from nandetect.interpret.loops import Loop
from nandetect.interpret.walk import Inside, Run
from nandetect.locating.carried import out_of_the_loop
from nandetect.locating.comparisons import Sought, is_test
from nandetect.locating.made import maker
from nandetect.locating.trail import Birth, Node, Trail
from nandetect.nonfinite import Mask
from nandetect.primitives import Use
from nandetect.program import sources

# The most equations that the way back passes.
MOST_EQUATIONS = 20_000

# What was decided: when a loop ended, which branch of a `cond` ran, which of its operands a selection (or anything else) took.
Kind: TypeAlias = Literal["end", "branch", "selection"]
Wants: TypeAlias = dict[Var, Mask]


@dataclass(frozen=True)
class Decision:
    """Non-finite elements of an operand of `node`, whose result is none; `decided` is the equation that went by it."""

    node: Node
    atom: Atom
    mask: Mask
    kind: Kind
    decided: Node

    @property
    def is_nan(self) -> bool:
        """Whether a NaN is among them."""
        return bool((nonfinite.nans(self.node.run.read(self.atom)) & self.mask).any())


@dataclass
class Sweep:
    """The way back from some elements. With `asked_for`, tests whether something is non-finite decide too.

    Of a loop's iterations the last one is looked into; with `sought`, those in which a NaN was compared that is, until one decided.
    """

    asked_for: bool = False
    sought: Sought | None = None
    decisions: list[Decision] = field(default_factory=list)
    left: int = MOST_EQUATIONS

    def back(self, run: Run, wanted: Wants, kind: Kind, decided: Node) -> None:
        """Go back through a run from the wanted elements, and on through the runs around it."""
        left = self._through(run, wanted, kind, decided)
        outside: Wants = {}
        for var, mask in left.items():
            atom = run.operand(var)
            if atom is not None:
                _want(outside, atom, mask)
        if run.parent is not None and outside:
            self.back(run.parent, outside, kind, decided)

    def around(self, run: Run) -> None:
        """Go back from what chose the branches that a run stands in."""
        while run.parent is not None:
            node = Node(run.parent, run.path[-2])
            if node.eqn.primitive.name == "cond":
                self.back(run.parent, _whole(run.parent, [node.eqn.invars[0]]), "branch", node)
            run = run.parent

    def predicates(self, node: Node, output: int, mask: Mask) -> None:
        """Go back from what is no number among the operands of an equation, as far as elements of a result go by it."""
        if node.number in node.run.inner or primitives.of(node.eqn).loops or not node.run.knows_ins(node.eqn) or node.run.shards:
            return
        wanted: Wants = {}
        for slot, elements in _pulled(node, output, mask):
            if not nonfinite.is_inexact(node.eqn.invars[slot].aval):
                _want(wanted, node.eqn.invars[slot], elements)
        if wanted:
            self.back(node.run, wanted, "selection", node)

    def operands(self, node: Node, output: int, mask: Mask) -> None:
        """Go back from all operands of an equation that elements of a result were computed from."""
        if node.run.knows_ins(node.eqn) and not node.run.shards:
            wanted: Wants = {}
            for slot, elements in self._led(node, output, mask, "selection", node):
                _want(wanted, node.eqn.invars[slot], elements)
            self.back(node.run, wanted, "selection", node)

    def _through(self, run: Run, wanted: Wants, kind: Kind, decided: Node) -> Wants:
        for number in reversed(range(run.done)):
            eqn = run.jaxpr.eqns[number]
            asked = {output: wanted.pop(var) for output, var in enumerate(eqn.outvars) if var in wanted}
            if not asked or self.left <= 0:
                continue
            self.left -= 1
            node = Node(run, number)
            if run.shards or not run.knows_ins(eqn):
                continue
            if primitives.of(eqn).loops:
                self._loop(node, asked, wanted)
            elif number in run.inner:
                self._enter(node, asked, wanted, kind, decided)
            elif not primitives.of(eqn).spreads:
                for output, mask in asked.items():
                    for slot, elements in self._led(node, output, mask, kind, decided):
                        _want(wanted, eqn.invars[slot], elements)
        return wanted

    def _enter(self, node: Node, asked: dict[int, Mask], wanted: Wants, kind: Kind, decided: Node) -> None:
        child = node.run.inner[node.number]
        inside: Wants = {}
        for output, mask in asked.items():
            _want(inside, child.jaxpr.outvars[output], mask)
        if node.eqn.primitive.name == "cond":
            self.back(node.run, _whole(node.run, [node.eqn.invars[0]]), "branch", node)
        for var, mask in self._through(child, inside, kind, decided).items():
            atom = child.operand(var)
            if atom is not None:
                _want(wanted, atom, mask)

    def _loop(self, node: Node, asked: dict[int, Mask], wanted: Wants) -> None:
        """What ended a loop, what it began with, and what its last iteration went by."""
        loop = loops.opened(node.run, node.number)
        for slot, atom in enumerate(node.eqn.invars):
            # Which iterations handed on which elements is not asked: all of what the loop was given counts, and where it is non-finite
            # it counts in the loop.
            if slot >= loop.first_const:
                _want(wanted, atom, ~nonfinite.bad(node.run.read(atom)) if nonfinite.is_inexact(atom.aval) else _all(node.run, atom))
        carried = {output: mask for output, mask in asked.items() if output < loop.carry or self.sought}
        if loop.condition is not None:
            carried |= self._end(node)
        # With decisions enough no iteration is run again to find more.
        if self.decisions or not carried:
            return
        if self.sought is not None:
            self._search(node, loop, self.sought)
        elif (step := loop.ran() - 1) >= 0:
            run = loops.iteration(node.run, node.number, loop, step).run
            inside: Wants = {}
            for output, mask in carried.items():
                _want(inside, run.jaxpr.outvars[output], mask)
            self._through(run, inside, "selection", node)

    def _search(self, node: Node, loop: Loop, sought: Sought) -> None:
        """What iterations of a loop that compare a NaN went by, and its condition before each."""
        for step in () if sought.is_late else sought.iterations(loop, node.order):
            goes_on = True
            if loop.test is not None:
                end = _condition(node, loop.at(step)[0], step)
                self._through(end, _whole(end, end.jaxpr.outvars), "end", node)
                goes_on = bool(np.any(end.read(end.jaxpr.outvars[0])))
            if goes_on and not self.decisions:
                # What comes of an iteration is decided by the later ones, which go by all that it handed on.
                run = loops.iteration(node.run, node.number, loop, step).run
                self._through(run, _whole(run, run.jaxpr.outvars), "selection", node)
            if self.decisions or sought.is_late:
                return

    def _end(self, node: Node) -> dict[int, Mask]:
        """The elements of a `while`'s results that its condition went by when it ended, which are also what it went by before."""
        end = _condition(node, [node.run.read(var) for var in node.eqn.outvars])
        left = self._through(end, _whole(end, end.jaxpr.outvars), "end", node)
        consts = node.eqn.params["cond_nconsts"]
        places = ((end.jaxpr.invars.index(var) - consts, mask) for var, mask in left.items() if var in end.jaxpr.invars)
        return {output: mask for output, mask in places if output >= 0}

    def _led(self, node: Node, output: int, mask: Mask, kind: Kind, decided: Node) -> Iterator[tuple[int, Mask]]:
        """The finite elements of operands that elements of a result came from; decisions on the others are entered."""
        eqn, run = node.eqn, node.run
        is_number = nonfinite.is_inexact(eqn.outvars[output].aval)
        for slot, elements in _pulled(node, output, mask):
            if not self.asked_for and primitives.of(eqn).joins is not None:
                elements = elements & _may_decide(node, output, slot)
            atom = eqn.invars[slot]
            if not nonfinite.is_inexact(atom.aval):
                yield slot, elements
                continue
            # An inf is compared as what it is: it misleads nobody who does not ask for it.
            nan = elements & (nonfinite.bad if self.asked_for else nonfinite.nans)(run.read(atom))
            sought = self.sought is None or node.order not in self.sought.known
            if sought and not is_number and nan.any() and (self.asked_for or not is_test(eqn)):
                self.decisions.append(Decision(node, atom, nan, kind, decided))
            yield slot, elements & ~nonfinite.bad(run.read(atom))


def births(trail: Trail, decision: Decision) -> list[Birth]:
    """Where the NaN of a decision was born, the first to run first; the ways from there are entered in the trail."""
    own = trail.beside()
    if not isinstance(decision.atom, compat.Literal):
        _follow(own, decision.node.run, {decision.atom: decision.mask}, decision.node)
    trail.ways(own)
    return sorted(own.births, key=lambda birth: birth.node.order)


def is_of_one_call(birth: Birth, decision: Decision) -> bool:
    """Whether a value was both made and compared within one call of the user's to a library, whose own business it is then.

    A line search interpolates, and goes on otherwise where that gives NaN.
    """
    made, met = (sources.source(node.eqn, node.run.eqns) for node in (birth.node, decision.node))
    return made is not None and met is not None and sources.place(made) == sources.place(met)


def _follow(trail: Trail, run: Run, wanted: Wants, asker: Node) -> None:
    """Follow non-finite elements back through a run and those around it, loops' iterations among them."""
    left = trail.follow(run, {var: {Use.COMPUTED: mask} for var, mask in wanted.items()}, dict.fromkeys(wanted, asker))
    outside: Wants = {}
    for var, (elements, _) in left.items():
        mask = np.logical_or.reduce(list(elements.values()))
        for atom, given in _outside(trail, run, var, mask, asker):
            _want(outside, atom, given)
    if run.parent is not None and outside:
        _follow(trail, run.parent, outside, asker)


def _outside(trail: Trail, run: Run, var: Var, mask: Mask, asker: Node) -> list[tuple[Atom, Mask]]:
    """What an argument of a run is in the run around it, by elements."""
    if run.parent is None or var not in run.jaxpr.invars:
        return []
    eqn, argument = run.eqns[-1], run.jaxpr.invars.index(var)
    if not primitives.of(eqn).loops:
        atom = run.operand(var)
        return [] if atom is None else [(atom, mask)]
    is_condition, consts = run.path[-1] == _slot_of_condition(eqn), eqn.params.get("cond_nconsts", 0)
    if is_condition and argument < consts:
        return [(eqn.invars[argument], mask)]
    if run.entry is not None:
        place = argument - consts + eqn.params["body_nconsts"] if is_condition else argument
        return [(eqn.invars[slot], given) for slot, given in out_of_the_loop(trail, run, place, mask, asker)]
    # What the loop ended with.
    return [(eqn.outvars[argument - consts], mask)]


def _condition(node: Node, carry: Sequence[Array], step: int | None = None) -> Run:
    """The condition of a `while` on what the loop ended with, or on what it carried before an iteration."""
    eqn = node.eqn
    entry = None if step is None else (eqn.primitive.name, step)
    end = walk.start(Inside(eqn.params["cond_jaxpr"], (), _slot_of_condition(eqn), entry), eqn, node.number, node.run)
    end.order = end.order if step is None else (*end.order, step)
    consts = [node.run.read(atom) for atom in eqn.invars[: eqn.params["cond_nconsts"]]]
    walk.run(end, [*consts, *carry])
    return end


def _slot_of_condition(eqn: JaxprEqn) -> int:
    return next((slot for slot, (key, _) in enumerate(compat.sub_jaxprs(eqn)) if key == "cond_jaxpr"), -1)


def _may_decide(node: Node, output: int, slot: int) -> Mask:
    """The elements of an operand that may have decided what joins it to another: all, but where the other alone or a test did.

    Of `isfinite(x) & (x > 0)` the comparison decides nothing where `x` is NaN.
    """
    eqn, run = node.eqn, node.run
    joins, own = primitives.of(eqn).joins, np.asarray(run.read(eqn.invars[slot]))
    every = np.ones(own.shape, bool)
    if len(eqn.invars) != 2 or own.dtype != bool:
        return every
    other = eqn.invars[1 - slot]
    decided = np.asarray(run.read(eqn.outvars[output])) == joins
    return every & (~decided | (own == joins)) & ~(_asks(run, other) & decided & (np.asarray(run.read(other)) == joins))


def _asks(run: Run, atom: Atom, depth: int = 8) -> bool:
    """Whether a truth value says of something whether it is finite, and nothing else."""
    run, atom, number = maker(run, atom)
    if number is None or not depth:
        return False
    node = Node(run, number)
    joined = primitives.of(node.eqn).joins is not None
    return all(_asks(run, operand, depth - 1) for operand in node.eqn.invars) if joined else is_test(node.eqn)


def _pulled(node: Node, output: int, mask: Mask) -> Iterable[tuple[int, Mask]]:
    """The elements of every operand that elements of a result depend on, those that only say where from among them."""
    eqn, ins = node.eqn, node.run.ins(node.eqn)
    known = {flow.slot: flow.pull(mask) for flow in flows(eqn, ins, output)}
    for slot, value in enumerate(ins):
        shape = np.shape(value)
        elements = known.get(slot)
        if elements is None:
            elements = mask if shape == mask.shape else np.full(shape, bool(mask.any()))
        if elements.any():
            yield slot, elements


def _want(wanted: Wants, atom: Atom, mask: Mask) -> None:
    if not isinstance(atom, compat.Literal) and mask.any():
        wanted[atom] = wanted[atom] | mask if atom in wanted else mask


def _all(run: Run, atom: Atom) -> Mask:
    return np.ones(np.shape(run.read(atom)), bool)


def _whole(run: Run, atoms: Iterable[Atom]) -> Wants:
    wanted: Wants = {}
    for atom in atoms:
        _want(wanted, atom, _all(run, atom))
    return wanted
