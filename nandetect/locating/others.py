"""What else is at fault: births that break the symptoms even with the origin mended, seen by mending it and looking again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nandetect import compat
from nandetect.compat import Atom, Jaxpr, JaxprEqn
from nandetect.interpret import mended, walk
from nandetect.interpret.walk import variables
from nandetect.locating.origin import Verdict, is_broken
from nandetect.locating.trail import Birth, Node, Trail
from nandetect.program.trace import Program

# The most that are told of one fault.
MOST = 4


def also_at_fault(program: Program, verdict: Verdict, origin: Node | None, symptoms: Sequence[Atom]) -> list[Birth]:
    """The births on or beside a trail that break its symptoms by themselves, the first to run first; `origin` is None for what arrived."""
    trail = verdict.trail
    # A replay of a shard's body is compiled whole, and mends nothing.
    candidates = [birth for birth in [*trail.births, *trail.met] if not birth.node.run.shards]
    broken = [] if origin is None else [origin]
    arrived = {arrival.atom for arrival in trail.arrivals if is_broken(arrival)} if origin is None else set()
    found: list[Birth] = []
    while len(found) < MOST and not any(node.run.shards for node in broken):
        mended_already = {id(node.eqn) for node in broken}
        candidates = [birth for birth in candidates if id(birth.node.eqn) not in mended_already]
        if not candidates:
            break
        still = {id(birth.node.eqn) for birth in _followed(program, broken, arrived, symptoms).births}
        left = [birth for birth in candidates if id(birth.node.eqn) in still]
        if not left:
            break
        found.append(min(left, key=lambda birth: birth.node.order))
        broken.append(found[-1].node)
    return found


def _followed(program: Program, broken: Sequence[Node], arrived: set[Atom], symptoms: Sequence[Atom]) -> Trail:
    """The trail from what is still non-finite of the symptoms with some equations mended, and what arrived."""
    alike = [found for node in broken for found in _alike(program.jaxpr, node.eqn, ())]
    top = walk.begin(program, mended.leaf([eqn for eqn, _ in alike], [outer for _, around in alike for outer in around]))
    args = [mended.argument(value) if var in arrived else value for var, value in zip(program.jaxpr.invars, program.args, strict=True)]
    walk.run(top, args, frozenset(variables(symptoms)))
    trail = Trail()
    for atom in symptoms:
        if top.knows(atom):
            trail.symptom(top, atom)
    return trail


def _alike(jaxpr: Jaxpr, wanted: JaxprEqn, around: tuple[JaxprEqn, ...]) -> Iterator[tuple[JaxprEqn, tuple[JaxprEqn, ...]]]:
    """The equations that stem from the same piece of source as one, each with those that it stands in: one operation to who mends it."""
    frames = compat.user_frames(wanted.source_info)
    for eqn in jaxpr.eqns:
        if eqn is wanted or (eqn.primitive is wanted.primitive and compat.user_frames(eqn.source_info) == frames):
            yield eqn, around
        for _, sub in compat.sub_jaxprs(eqn):
            yield from _alike(compat.open_jaxpr(sub)[0], wanted, (*around, eqn))
