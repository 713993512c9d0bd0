"""Ways of writing that go non-finite, each with a way that does not: a report offers them, one test runs them. No JAX until one is run."""

from __future__ import annotations

from collections.abc import Sequence

from nandetect.hazards import divisions, linalg, logs, masks, optimizers, overflow, roots
from nandetect.hazards.hazard import Facts, Hazard
from nandetect.hazards.proof import proof
from nandetect.records import Event, Fix

# Hazards in the order in which they are offered: those whose patterns ask for more come first.
HAZARDS: tuple[Hazard, ...] = (
    *(optimizers.HAZARDS + linalg.HAZARDS + masks.HAZARDS),
    *(divisions.HAZARDS + logs.HAZARDS + roots.HAZARDS + overflow.HAZARDS),
)
# The most fixes that a report offers.
MOST = 2


def fixes(origin: Event, chain: Sequence[Event] = (), cause: Sequence[Event] = ()) -> tuple[Fix, ...]:
    """The stable ways to write what an origin and its causes show, the best first; none where no hazard is known."""
    facts = Facts(origin, tuple(chain), tuple(cause))
    matching = [hazard for hazard in HAZARDS if hazard.matches(facts)]
    best = [hazard for hazard in matching if not hazard.general] or matching
    return tuple(_fix(hazard, facts, proven=hazard is best[0]) for hazard in best[:MOST])


def _fix(hazard: Hazard, facts: Facts, proven: bool) -> Fix:
    # Proofs take time to compile: only the best hazard gets one.
    shown = proof(hazard, hazard.values(facts)) if proven else None
    return Fix(code=hazard.code, name=hazard.name, why=hazard.why, before=hazard.before, after=hazard.after, proof=shown)
