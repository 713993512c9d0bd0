"""From a trail to the report: which of the births is the origin, how its value reached the symptom, and what else was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Jaxpr
from nandetect.interpret import walk
from nandetect.interpret.walk import Run
from nandetect.locating import births, cause, events, leaked
from nandetect.locating.decisive import decisive
from nandetect.locating.events import Lens
from nandetect.locating.iterations import Loops
from nandetect.locating.operand_names import Names
from nandetect.locating.origin import Origin, Verdict, origin
from nandetect.locating.others import also_at_fault
from nandetect.locating.phase_of_birth import birth_event
from nandetect.locating.trail import Birth, Node, Trail
from nandetect.program.derivative import Derivatives
from nandetect.program.phase import Phases
from nandetect.program.trace import Program
from nandetect.records import Event, Report

Made = TypeVar("Made")


def lens(program: Program, phases: Phases) -> Lens:
    """What the events of a program share."""
    derivatives = Derivatives(program.jaxpr, phases, program.retrace)
    return Lens(phases, Names(program.jaxpr, program.arguments, phases, derivatives), derivatives)


def report(program: Program, lens: Lens, verdict: Verdict, broken: list[int], wanted: Callable[[Event], bool]) -> Report | None:
    """The report of a verdict; `broken` are all the results that are non-finite, its symptoms among them.

    None where its origin is none that is `wanted`.
    """
    trail = verdict.trail
    first, notes = decisive(program, verdict, origin(program, lens, verdict), lens)
    if not wanted(first.event):
        return None
    chain = _aid(lambda: _chain(trail, first, lens), (first.event,))
    causes = _cause(first, lens, trail)
    others, benign = _aid(lambda: _beside(program, verdict, first, causes, broken, lens), ((), ()))
    return Report(
        origin=first.event,
        chain=chain,
        cause=causes,
        others=others,
        symptoms=tuple(program.results[number] for number in dict.fromkeys([*verdict.symptoms, *broken])),
        benign=benign,
        reproduced=bool(trail.births or trail.arrivals or trail.literals),
        compiled_only=verdict.compiled_only,
        unseen=_unseen(program.jaxpr),
        notes=(*notes, *_aid(lambda: leaked.notes(verdict, first, lens), ())),
        label=program.name,
    )


def _aid(make: Callable[[], Made], otherwise: Made) -> Made:
    """What stands beside an origin: where making it fails, a report is one without it."""
    try:
        return make()
    except Exception:
        return otherwise


def _beside(
    program: Program, verdict: Verdict, first: Origin, causes: tuple[Event, ...], broken: list[int], lens: Lens
) -> tuple[tuple[Event, ...], tuple[Event, ...]]:
    """The births that break a result beside the origin; and those that no result descends from, that met nothing, that no cause names."""
    places = verdict.places
    reached = _reached(verdict.trail)
    if set(broken) > set(verdict.symptoms) and any(_key(*place) not in reached for place in places):
        # Results of a later pass may descend from them: nobody is called innocent before all results were looked at.
        verdict = _wider(program, verdict, broken)
        reached |= _reached(verdict.trail)
    named = [(event.primitive, event.source) for event in causes]
    seen = [events.make(*place, None, lens) for place in places if _key(*place) not in reached]
    benign = tuple(event for event in seen if (event.primitive, event.source) not in named)
    # A fault that only the compiled program has would not be seen again.
    if verdict.compiled_only:
        return (), benign
    symptoms = [program.jaxpr.outvars[number] for number in verdict.symptoms]
    # With a number in place of another anything may happen, and none of it may cost the list of what is innocent.
    found = _aid(lambda: also_at_fault(program, verdict, None if first.arrived else first.node, symptoms), [])
    made = [birth_event(verdict.trail, birth, lens) for birth in found]
    return tuple(made), benign


def _key(node: Node, output: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Names a result of an equation in any run of the program."""
    return node.path, node.order, output


def _reached(trail: Trail) -> set[tuple[tuple[int, ...], tuple[int, ...], int]]:
    return {_key(birth.node, birth.output) for birth in [*trail.births, *trail.met]}


def _wider(program: Program, verdict: Verdict, broken: list[int]) -> Verdict:
    """A verdict's trail with the ways from all broken results added, in a run to its end."""
    top = walk.begin(program)
    walk.run(top, program.args)
    trail = Trail()
    for number in broken:
        trail.symptom(top, program.jaxpr.outvars[number])
    return Verdict(top, trail, broken, verdict.compiled_only)


def _cause(first: Origin, lens: Lens, trail: Trail) -> tuple[Event, ...]:
    """What made the operands of an origin deadly; nothing for a value that arrived non-finite, or was written so."""
    birth = first.birth
    if birth is None:
        return ()
    return cause.trace(birth.node, birth.output, nonfinite.first(birth.mask), lens, Loops(trail.loops))


def _chain(trail: Trail, first: Origin, lens: Lens) -> tuple[Event, ...]:
    if first.node is None:
        return (first.event,)
    nodes = trail.chain(first.node)
    rest = nodes if first.arrived else nodes[1:]
    loop = _outermost_loop(nodes[-1].run)
    if loop is not None and loop in trail.asked:
        # What the user sees is what the loop returned, not what an iteration of it made.
        rest = [*rest, loop]
    return (first.event, *(_passing(trail, step, lens) for step in rest))


def _outermost_loop(run: Run) -> Node | None:
    """The outermost loop that a run stands in."""
    outermost = None
    while run.parent is not None:
        if run.entry is not None and primitives.named(run.entry[0]).loops:
            outermost = Node(run.parent, run.path[-2])
        run = run.parent
    return outermost


def _passing(trail: Trail, node: Node, lens: Lens) -> Event:
    """An equation on the way, at the element that it passed on."""
    # What was decided by a non-finite value is none itself, and nobody asked for elements of it.
    output, mask = next(iter(trail.asked.get(node, {0: None}).items()))
    return events.make(node, output, mask, lens, brief=True)


def of_origin(program: Program, lens: Lens, trail: Trail, first: Origin) -> Report:
    """The report of an origin that no result of the program shows."""
    chain, causes = _chain(trail, first, lens), _cause(first, lens, trail)
    return Report(
        origin=first.event,
        chain=chain,
        cause=causes,
        unseen=_unseen(program.jaxpr),
        label=program.name,
    )


def of_birth(program: Program, trail: Trail, birth: Birth) -> Report:
    """The report of one birth that no result of the program shows."""
    own = lens(program, Phases(program.jaxpr, program.retrace))
    return of_origin(program, own, trail, Origin(birth_event(trail, birth, own), birth.node, birth))


def of_births(program: Program, lens: Lens, places: list[births.Birthplace]) -> Report:
    """The report of births that no symptom descends from: the first is the origin."""
    born = [events.make(node, output, None, lens) for node, output in places]
    causes = cause.trace(*places[0], born[0].index, lens, Loops())
    return Report(
        origin=born[0],
        chain=(born[0],),
        cause=causes,
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
