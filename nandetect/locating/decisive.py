"""The origin, where what seems to be one only did as something non-finite had decided before it."""

from __future__ import annotations

from nandetect.interpret import loops
from nandetect.locating import others, steering
from nandetect.locating.events import Lens
from nandetect.locating.origin import Origin, Verdict
from nandetect.locating.otherwise import changing
from nandetect.locating.phase_of_birth import birth_event
from nandetect.locating.steering import Decision, Sweep
from nandetect.locating.trail import Birth, Node
from nandetect.program import sources
from nandetect.program.trace import Program

_DECIDED = {"end": "the end of the loop", "branch": "which branch ran", "selection": "what was selected"}


def decisive(program: Program, verdict: Verdict, first: Origin, lens: Lens) -> tuple[Origin, tuple[str, ...]]:
    """The origin, and sentences on what was decided by a NaN before it.

    A NaN that ended a loop or took a branch which the origin descends from is the origin itself, unless the origin is there without it
    too: what ran after it ran as nobody meant. So is one that chose a literal. One that only made a selection is named where the symptoms
    would be others without it.
    """
    if first.node is None or first.arrived or verdict.compiled_only or not _may_be_decided(verdict):
        return first, ()
    # The way back is a help beside the report, which must not be lost for it.
    try:
        return _decisive(program, verdict, first, first.node, lens)
    except Exception:
        return first, ()


def _decisive(program: Program, verdict: Verdict, first: Origin, node: Node, lens: Lens) -> tuple[Origin, tuple[str, ...]]:
    trail, notes = verdict.trail, []
    for decision in _decisions(verdict, first, node):
        born = [birth for birth in steering.births(trail, decision) if birth.node != node]
        if not born or (decision.kind != "selection" and first.birth is not None and _is_there_without(program, verdict, node, born[0])):
            continue
        if decision.kind == "selection" and first.birth is not None and not _changes(program, verdict, decision):
            continue
        trail.met += born
        notes.append(said(decision))
        if first.birth is None or decision.kind != "selection":
            trail.links.setdefault(decision.node, decision.decided)
            trail.links.setdefault(decision.decided, node)
            return _of(verdict, born[0], lens), (notes[-1],)
    return first, tuple(dict.fromkeys(notes))


def _changes(program: Program, verdict: Verdict, decision: Decision) -> bool:
    """Whether the symptoms are others where the NaN is told the other thing."""
    return next(changing(program, [decision.node], verdict.symptoms, in_all_iterations=True), None) is not None


def said(decision: Decision) -> str:
    """What was decided and where, as a sentence."""
    at = decision.node if decision.kind == "selection" else decision.decided
    place = sources.source(at.eqn, at.run.eqns)
    where = f" at line {place.line}" if place else ""
    return f"{'nan' if decision.is_nan else 'inf'} decided {_DECIDED[decision.kind]}{where}"


def _decisions(verdict: Verdict, first: Origin, node: Node) -> list[Decision]:
    """What was decided on the way to an origin, and on its way to the symptom."""
    sweep = Sweep(asked_for=first.birth is None)
    if first.birth is not None:
        sweep.operands(node, first.birth.output, first.birth.mask)
    sweep.around(node.run)
    for passed in verdict.trail.chain(node):
        for output, mask in verdict.trail.asked[passed].items():
            sweep.predicates(passed, output, mask)
    for literal in verdict.trail.literals:
        sweep.around(literal.run)
    return sweep.decisions


def _is_there_without(program: Program, verdict: Verdict, node: Node, decided: Birth) -> bool:
    """Whether the equation of an origin breaks the symptoms also with the birth mended that seems to have decided that it ran."""
    symptoms = [program.jaxpr.outvars[number] for number in verdict.symptoms]
    trail = others.with_mended(program, [decided.node], set(), symptoms)
    return any(birth.node.eqn is node.eqn for birth in trail.births)


def _of(verdict: Verdict, birth: Birth, lens: Lens) -> Origin:
    return Origin(birth_event(verdict.trail, birth, lens), birth.node, birth)


def _may_be_decided(verdict: Verdict) -> bool:
    """Whether a run has births that its symptoms do not descend from, or loops that may have, whose end somebody decides."""
    reached = {(birth.node, birth.output) for birth in verdict.trail.births}
    return any(place not in reached for place in verdict.places) or any(map(loops.holds_while, verdict.run.jaxpr.eqns))
