"""Which of what a trail reached is the origin: a birth, what arrived broken, or where a literal was taken up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import Atom
from nandetect.interpret.walk import Run
from nandetect.locating import births, events, written
from nandetect.locating.births import Birthplace
from nandetect.locating.events import Lens
from nandetect.locating.phase_of_birth import birth_event, in_its_phase
from nandetect.locating.trail import Arrival, Birth, Node, Trail
from nandetect.primitives import Use
from nandetect.program.trace import Program
from nandetect.records import Event


@dataclass
class Verdict:
    """A run, the trail through it, and the results (`symptoms`, by number) that it was followed from.

    `returned` is the first of them as the step gave it, where no run of ours did.
    """

    run: Run
    trail: Trail
    symptoms: list[int]
    compiled_only: bool = False
    returned: Array | None = None

    @cached_property
    def places(self) -> list[Birthplace]:
        """Every birth of the run outside of loops, whether or not a symptom descends from it."""
        return births.births(self.run)


@dataclass(frozen=True)
class Origin:
    """The origin's event and its equation; of what arrived, the one that took it up. `birth` has the elements of one that was born."""

    event: Event
    node: Node | None = None
    birth: Birth | None = None

    @property
    def arrived(self) -> bool:
        """Whether it was there before the step began."""
        return self.event.primitive == "<input>"


def is_broken(arrival: Arrival) -> bool:
    """Whether what arrived is a fault: NaN, or an inf that was computed with and not only copied, compared or shifted in log space."""
    value = nonfinite.host(arrival.value)[arrival.mask]
    if np.isnan(value).any() or arrival.use is Use.COMPUTED:
        return True
    return arrival.use is Use.SHIFTED and bool((np.real(value) > 0).any())


def origin(program: Program, lens: Lens, verdict: Verdict) -> Origin:
    """The origin of a verdict."""
    trail = verdict.trail
    born = sorted(trail.births, key=lambda birth: birth.node.order)
    arrived = [arrival for arrival in trail.arrivals if is_broken(arrival) and not _is_only_cause(trail, arrival)]
    if arrived:
        arrival = min(arrived, key=lambda arrival: _place(program, arrival.atom))
        return Origin(events.arrival(_arrival_name(program, arrival), arrival.value, arrival.mask), arrival.node)
    if born:
        birth = born[0]
        return Origin(birth_event(trail, birth, lens), birth.node, birth)
    literal = min(trail.literals, key=lambda arrival: (arrival.node is None, arrival.run.order), default=None)
    if literal is not None and literal.node is None:
        return Origin(written.returned(program, literal))
    if literal is not None:
        node = literal.node
        assert node is not None
        twin = _chosen_over(trail, node)
        if twin is not None:
            return Origin(events.make(twin.node, twin.output, twin.mask, lens), twin.node, twin)
        event, node = written.event(trail, literal, node, lens)
        output, mask = next(iter(trail.asked.get(node, {}).items()), (0, None))
        return Origin(event if mask is None else in_its_phase(event, trail, Birth(node, output, mask), lens), node)
    return _unexplained(program, verdict, lens)


def _is_only_cause(trail: Trail, arrival: Arrival) -> bool:
    """Whether what arrived is no fault by itself: an inf that some operation made NaN of, or a mask's -inf where something was born."""
    value = nonfinite.host(arrival.value)[arrival.mask]
    if np.isnan(value).any():
        return False
    if trail.births and bool(np.isneginf(np.real(value)).all()):
        return True
    born = {birth.node for birth in trail.births}
    return arrival.node is not None and not born.isdisjoint(trail.chain(arrival.node))


def _chosen_over(trail: Trail, node: Node) -> Birth | None:
    """The birth of the very value that a select dropped in favour of a literal: `slogdet` writes -inf where log(0) gave it anyway."""
    run, eqn = node.run, node.eqn
    if not primitives.of(eqn).selects:
        return None
    value = nonfinite.host(run.read(eqn.outvars[0]))
    other = trail.beside()
    for atom in eqn.invars[1:]:
        if not isinstance(atom, compat.Literal):
            same = nonfinite.bad(value) & (nonfinite.host(run.read(atom)) == value)
            other.upward(run, {atom: {Use.COMPUTED: same}}, node)
    trail.ways(other)
    return min(other.births, key=lambda birth: birth.node.order, default=None)


def _place(program: Program, atom: Atom) -> int:
    """The number of the argument that an atom is; past the last for a constant that the step closes over."""
    return next((number for number, var in enumerate(program.jaxpr.invars) if var is atom), len(program.arguments))


def _arrival_name(program: Program, arrival: Arrival) -> str:
    return (*program.arguments, "a constant that the step closes over")[_place(program, arrival.atom)]


def _unexplained(program: Program, verdict: Verdict, lens: Lens) -> Origin:
    """The equation that makes the symptom, where no replay showed it."""
    var = program.jaxpr.outvars[verdict.symptoms[0]]
    number = verdict.run.maker(var)
    if number is None or isinstance(var, compat.Literal):
        return Origin(Event(primitive="<input>"))
    node = Node(verdict.run, number)
    event = events.make(node, node.output(var), None, lens)
    if verdict.returned is not None:
        value = nonfinite.host(verdict.returned)
        index = nonfinite.first(mask := nonfinite.bad(value))
        event = replace(event, value=nonfinite.kind_of(value[index]), reason="", index=index, count=int(mask.sum()))
    return Origin(event, node)
