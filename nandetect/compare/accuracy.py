"""How many ulps are lost along the families, and at which input the most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nandetect.compare.families import PER_DECADE, Args, Family
from nandetect.compare.judged import WHATS, Judge
from nandetect.compare.results import Sample, What
from nandetect.compare.ulps import PLAIN, Distance

# Points of a function that are held against its truth at inputs moved by their rounding, which costs three more truths each.
ASKED = 80
CLIMBS = 3


@dataclass(frozen=True, slots=True)
class Place:
    """An input of the sweep with what was measured there; `distance` is of the worst of value and gradient that was asked for."""

    family: Family
    size: float
    distance: Distance

    @property
    def args(self) -> Args:
        return self.family.at(self.size)


@dataclass(frozen=True, slots=True)
class Lost:
    """The samples along the families, and the worst places by what was measured."""

    samples: list[Sample]
    worst: dict[What, Place]


def lost(judge: Judge, families: Sequence[Family], every: int = PER_DECADE) -> Lost:
    """Measure one size of every `every` of the grid, then look around the worst."""
    places = [(family, float(size)) for family in families for size in family.grid[::every]]
    raw = judge.distances([family.at(size) for family, size in places], conditioned=False)
    settled = _conditioned(judge, places, raw)
    samples = [
        Sample(
            family=family.name,
            at=size,
            value_ulps=_ulps(found[0]),
            gradient_ulps=_ulps(found[1]),
            value_finite=not found[0].faulty,
            gradient_finite=not found[1].faulty,
        )
        for (family, size), found in zip(places, settled, strict=True)
        if found is not None
    ]
    return Lost(samples, {what: place for what in WHATS if (place := _worst(judge, places, settled, what))})


def _conditioned(
    judge: Judge, places: list[tuple[Family, float]], raw: list[tuple[Distance, Distance] | None]
) -> list[tuple[Distance, Distance] | None]:
    """The same with the input's own rounding allowed for, where that is asked; beyond `ASKED` points, nothing is said of them."""
    doubtful = [at for at, found in enumerate(raw) if found and any(PLAIN < one.ulps < np.inf for one in found)]
    doubtful.sort(key=lambda at: -max(_finite(one) for one in raw[at] or ()))
    settled = list(raw)
    again = judge.distances([places[at][0].at(places[at][1]) for at in doubtful[:ASKED]]) if doubtful else []
    for at, found in zip(doubtful, again, strict=False):
        settled[at] = found
    for at in doubtful[ASKED:]:
        settled[at] = None
    return settled


def _worst(judge: Judge, places: list[tuple[Family, float]], found: list[tuple[Distance, Distance] | None], what: What) -> Place | None:
    """The worst sample, or a worse one near to it."""
    which = WHATS.index(what)
    known = [(at, pair[which]) for at, pair in enumerate(found) if pair and np.isfinite(pair[which].ulps)]
    if not known:
        return None
    at, distance = max(known, key=lambda item: item[1].ulps)
    best = Place(*places[at], distance)
    width = 10.0 ** (1 / PER_DECADE)
    for _ in range(CLIMBS if not best.family.is_point else 0):
        sizes = [best.size / width, best.size / width**0.5, best.size * width**0.5, best.size * width]
        for size, pair in zip(sizes, judge.distances([best.family.at(size) for size in sizes]), strict=True):
            if pair and np.isfinite(pair[which].ulps) and pair[which].ulps > best.distance.ulps:
                best = Place(best.family, size, pair[which])
        width **= 0.5
    return best


def _finite(distance: Distance) -> float:
    return distance.ulps if np.isfinite(distance.ulps) else 0.0


def _ulps(distance: Distance) -> float | None:
    return float(distance.ulps) if np.isfinite(distance.ulps) else None
