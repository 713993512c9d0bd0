"""From a trail to the report: which of the births is the origin, how its value reached the symptom, and what else was seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nandetect import compat, hazards, nonfinite, primitives
from nandetect.compat import Atom, Jaxpr
from nandetect.interpret.walk import Run
from nandetect.locating import births, cause, events
from nandetect.locating.events import Lens
from nandetect.locating.operand_names import Names
from nandetect.locating.phase_of_birth import phase_of
from nandetect.locating.trail import Arrival, Birth, Node, Trail
from nandetect.primitives import Use
from nandetect.program.derivative import Derivatives
from nandetect.program.phase import Phases
from nandetect.program.trace import Program
from nandetect.records import Event, Report


@dataclass
class Verdict:
    """A run, the trail through it, and the results (`symptoms`, by number) that it was followed from."""

    run: Run
    trail: Trail
    symptoms: list[int]
    compiled_only: bool = False


def lens(program: Program, phases: Phases) -> Lens:
    """What the events of a program share."""
    return Lens(phases, Names(program.jaxpr, program.arguments, phases), Derivatives(program.jaxpr, phases, program.retrace))


def is_broken(arrival: Arrival) -> bool:
    """Whether what arrived is a fault: NaN, or an inf that was computed with and not only copied, compared or shifted in log space."""
    value = nonfinite.host(arrival.value)[arrival.mask]
    if np.isnan(value).any() or arrival.use is Use.COMPUTED:
        return True
    return arrival.use is Use.SHIFTED and bool((np.real(value) > 0).any())


def report(program: Program, lens: Lens, verdict: Verdict, broken: list[int]) -> Report:
    """The report of a verdict; `broken` are all the results that are non-finite, its symptoms among them."""
    trail = verdict.trail
    origin, node = _origin(program, lens, verdict)
    chain = _chain(trail, origin, node, lens)
    reached = {(birth.node, birth.output) for birth in trail.births}
    benign = tuple(events.make(*place, None, lens) for place in births.births(verdict.run) if place not in reached)
    causes = _cause(trail, origin, node, lens)
    return Report(
        origin=origin,
        chain=chain,
        cause=causes,
        fixes=hazards.fixes(origin, chain, causes),
        symptoms=tuple(program.results[number] for number in dict.fromkeys([*verdict.symptoms, *broken])),
        benign=benign,
        reproduced=bool(trail.births or trail.arrivals or trail.literals),
        compiled_only=verdict.compiled_only,
        unseen=_unseen(program.jaxpr),
        label=program.name,
    )


def _origin(program: Program, lens: Lens, verdict: Verdict) -> tuple[Event, Node | None]:
    trail = verdict.trail
    arrived = [arrival for arrival in trail.arrivals if is_broken(arrival)]
    born = sorted(trail.births, key=lambda birth: birth.node.order)
    # Arrivals of -inf (a mask, or state) are no fault by themselves: what made nan of them is.
    arrived = [arrival for arrival in arrived if not born or not _is_mask(arrival)]
    if arrived:
        arrival = min(arrived, key=lambda arrival: _place(program, arrival.atom))
        return events.arrival(_arrival_name(program, arrival), arrival.value, arrival.mask), arrival.node
    if born:
        birth = born[0]
        return events.make(birth.node, birth.output, birth.mask, lens, phase_of(trail, birth, lens.phases)), birth.node
    written = [arrival for arrival in trail.literals if arrival.node is not None]
    if written:
        node = written[0].node
        assert node is not None
        twin = _chosen_over(trail, node)
        if twin is not None:
            return events.make(twin.node, twin.output, twin.mask, lens), twin.node
        return events.make(node, 0, None, lens), node
    return _unexplained(program, verdict, lens)


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


def _is_mask(arrival: Arrival) -> bool:
    value = nonfinite.host(arrival.value)[arrival.mask]
    return bool(np.isneginf(np.real(value)).all())


def _place(program: Program, atom: Atom) -> int:
    """The number of the argument that an atom is; past the last for a constant that the step closes over."""
    return next((number for number, var in enumerate(program.jaxpr.invars) if var is atom), len(program.arguments))


def _arrival_name(program: Program, arrival: Arrival) -> str:
    return (*program.arguments, "a constant that the step closes over")[_place(program, arrival.atom)]


def _unexplained(program: Program, verdict: Verdict, lens: Lens) -> tuple[Event, Node | None]:
    """The equation that makes the symptom, where no replay showed it."""
    var = program.jaxpr.outvars[verdict.symptoms[0]]
    number = verdict.run.maker(var)
    if number is None or isinstance(var, compat.Literal):
        return Event(primitive="<input>"), None
    node = Node(verdict.run, number)
    return events.make(node, node.output(var), None, lens), node


def _cause(trail: Trail, origin: Event, node: Node | None, lens: Lens) -> tuple[Event, ...]:
    """What made the operands of an origin deadly; nothing for a value that arrived non-finite."""
    if node is None or origin.primitive == "<input>":
        return ()
    birth = next((birth for birth in trail.births if birth.node == node), None)
    output, index = (birth.output, nonfinite.first(birth.mask)) if birth else (0, origin.index)
    return cause.trace(node, output, index, lens)


def _chain(trail: Trail, origin: Event, node: Node | None, lens: Lens) -> tuple[Event, ...]:
    if node is None:
        return (origin,)
    nodes = trail.chain(node)
    rest = nodes if origin.primitive == "<input>" else nodes[1:]
    return (origin, *(_passing(trail, step, lens) for step in rest))


def _passing(trail: Trail, node: Node, lens: Lens) -> Event:
    """An equation on the way, at the element that it passed on."""
    output, mask = next(iter(trail.asked[node].items()))
    return events.make(node, output, mask, lens, brief=True)


def of_births(program: Program, lens: Lens, places: list[births.Birthplace]) -> Report:
    """The report of births that no symptom descends from: the first is the origin."""
    born = [events.make(node, output, None, lens) for node, output in places]
    causes = cause.trace(*places[0], born[0].index, lens)
    return Report(
        origin=born[0],
        chain=(born[0],),
        cause=causes,
        fixes=hazards.fixes(born[0], (), causes),
        benign=tuple(born[1:]),
        unseen=_unseen(program.jaxpr),
        label=program.name,
    )


def _unseen(jaxpr: Jaxpr) -> tuple[str, ...]:
    """The equations that hide a program of their own, by name."""
    # Keys of a dict: each name once, in the order of the program.
    names: dict[str, None] = {}
    for eqn in jaxpr.eqns:
        if primitives.of(eqn).opaque:
            names[eqn.primitive.name] = None
        for _, sub in compat.sub_jaxprs(eqn):
            names.update(dict.fromkeys(_unseen(compat.open_jaxpr(sub)[0])))
    return tuple(names)
