"""What else is at fault: births that break the symptoms even with the origin mended, seen by mending it and looking again."""

from __future__ import annotations

from collections.abc import Sequence

from nandetect.compat import Atom, JaxprEqn
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
    around: list[JaxprEqn] = [eqn for node in broken for eqn in node.run.eqns]
    top = walk.begin(program, mended.leaf([node.eqn for node in broken], around))
    args = [mended.argument(value) if var in arrived else value for var, value in zip(program.jaxpr.invars, program.args, strict=True)]
    walk.run(top, args, frozenset(variables(symptoms)))
    trail = Trail()
    for atom in symptoms:
        if top.knows(atom):
            trail.symptom(top, atom)
    return trail
