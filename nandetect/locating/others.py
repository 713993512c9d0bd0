"""What else is at fault: births that break the symptoms even with the origin mended, seen by mending it and looking again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nandetect import compat, nonfinite
from nandetect.compat import Atom, Jaxpr, JaxprEqn
from nandetect.interpret import mended, walk
from nandetect.interpret.walk import variables
from nandetect.locating.origin import Verdict, is_broken
from nandetect.locating.trail import Birth, Node, Trail
from nandetect.program import sources
from nandetect.program.trace import Program
from nandetect.records import Frame

# The most that are told of one fault.
MOST = 4


def also_at_fault(program: Program, verdict: Verdict, origin: Node | None, symptoms: Sequence[Atom]) -> list[Birth]:
    """The births on or beside a trail that break its symptoms by themselves, the first to run first; `origin` is None for what arrived."""
    trail = verdict.trail
    carried = set(trail.chain(origin)) if origin is not None else set()
    candidates = [
        birth
        for birth in [*trail.births, *trail.met]
        # What made NaN of the origin's own inf on the way to the symptom is a consequence, and asks for no replay.
        if not (birth.node in carried and _was_given_bad(birth.node))
    ]
    broken = [] if origin is None else [origin]
    arrived = {arrival.atom for arrival in trail.arrivals if is_broken(arrival)} if origin is None else set()
    found: list[Birth] = []
    while len(found) < MOST:
        candidates = [birth for birth in candidates if not any(_is_same(birth.node, node) for node in broken)]
        if not candidates:
            break
        still = {id(birth.node.eqn) for birth in with_mended(program, broken, arrived, symptoms).births}
        left = [birth for birth in candidates if id(birth.node.eqn) in still]
        if not left:
            break
        found.append(min(left, key=lambda birth: birth.node.order))
        broken.append(found[-1].node)
    return found


def with_mended(program: Program, broken: Sequence[Node], arrived: set[Atom], symptoms: Sequence[Atom]) -> Trail:
    """The trail from what is still non-finite of the symptoms with some operations mended, and what arrived."""
    operations = {id(node.eqn) for node in broken}
    written = {place for node in broken if (place := _written(node.eqn, node.run.eqns))}
    alike = [(eqn, around) for eqn, around in _all(program.jaxpr, ()) if id(eqn) in operations or _written(eqn, around) in written]
    top = walk.begin(program, mended.leaf([eqn for eqn, _ in alike], [outer for _, around in alike for outer in around]))
    args = [mended.argument(value) if var in arrived else value for var, value in zip(program.jaxpr.invars, program.args, strict=True)]
    walk.run(top, args, frozenset(variables(symptoms)))
    trail = Trail()
    for atom in symptoms:
        if top.knows(atom):
            trail.symptom(top, atom)
    return trail


def _was_given_bad(node: Node) -> bool:
    """Whether an operand of an equation holds something that is not finite."""
    ins = node.run.ins(node.eqn) if node.run.knows_ins(node.eqn) else []
    return any(nonfinite.is_inexact(x) and not nonfinite.is_clean(x) for x in ins)


def _is_same(one: Node, other: Node) -> bool:
    """Whether two equations are one operation to who mends it, its derivative with it."""
    place = _written(one.eqn, one.run.eqns)
    return one.eqn is other.eqn or (place is not None and place == _written(other.eqn, other.run.eqns))


def _written(eqn: JaxprEqn, around: Sequence[JaxprEqn]) -> tuple[Frame, ...] | None:
    """The piece of source that an equation stems from, with who called it."""
    source = sources.source(eqn, around)
    return source.frames if source is not None and source.column is not None else None


def _all(jaxpr: Jaxpr, around: tuple[JaxprEqn, ...]) -> Iterator[tuple[JaxprEqn, tuple[JaxprEqn, ...]]]:
    """All equations of a program, each with those that it stands in."""
    for eqn in jaxpr.eqns:
        yield eqn, around
        for _, sub in compat.sub_jaxprs(eqn):
            yield from _all(compat.open_jaxpr(sub)[0], (*around, eqn))
