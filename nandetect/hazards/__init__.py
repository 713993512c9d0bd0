"""Ways of writing that go non-finite, each with a way that does not. No JAX until one is run."""

from __future__ import annotations

from nandetect.hazards import divisions, linalg, logs, masks, optimizers, overflow, roots
from nandetect.hazards.hazard import Hazard

HAZARDS: tuple[Hazard, ...] = tuple(
    sorted(
        (
            *(logs.HAZARDS + roots.HAZARDS + divisions.HAZARDS + overflow.HAZARDS),
            *(masks.HAZARDS + linalg.HAZARDS + optimizers.HAZARDS),
        ),
        key=lambda hazard: hazard.code,
    )
)
BY_CODE: dict[str, Hazard] = {hazard.code: hazard for hazard in HAZARDS}
