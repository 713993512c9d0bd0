"""How many ulps the value and the gradient are off along the families, and the inputs at which they are off the most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nandetect.compare.families import PER_DECADE, Family
from nandetect.compare.judged import WHATS, Distances, Judged
from nandetect.compare.ordinary import Args
from nandetect.compare.results import Sample, What
from nandetect.compare.ulps import PLAIN, Distance

# Points at which the rounding of the input is allowed for: the truth is taken at several moved inputs too, which costs as many truths.
ASKED = 80
# Rounds in which a worse input is looked for around the worst one.
CLIMBS = 3

# A family and one of its sizes.
Point = tuple[Family, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """An input of the sweep, and the distance from the truth there of the value or the gradient."""

    family: Family
    size: float
    distance: Distance

    @property
    def args(self) -> Args:
        return self.family.at(self.size)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The samples along the families, and the worst measurements of value and gradient."""

    samples: list[Sample]
    worst: dict[What, Measurement]


def accuracy(judged: Judged, families: Sequence[Family], every: int = PER_DECADE) -> Accuracy:
    """Measure every `every`-th size of the families' grids, then look for worse inputs around the worst."""
    points = [(family, float(size)) for family in families for size in family.grid[::every]]
    raw = judged.distances([family.at(size) for family, size in points], conditioned=False)
    settled = _conditioned(judged, points, raw)
    samples = [
        Sample(
            family=family.name,
            at=size,
            value_ulps=_ulps(distances.value),
            gradient_ulps=_ulps(distances.gradient),
            value_finite=not distances.value.faulty,
            gradient_finite=not distances.gradient.faulty,
        )
        for (family, size), distances in zip(points, settled, strict=True)
        if distances is not None
    ]
    return Accuracy(samples, {what: worst for what in WHATS if (worst := _worst(judged, points, settled, what))})


def _conditioned(judged: Judged, points: Sequence[Point], raw: Sequence[Distances | None]) -> list[Distances | None]:
    """The raw distances, those above `PLAIN` ulps with the input's own rounding allowed for; beyond `ASKED` of those, None."""
    doubtful = [row for row, distances in enumerate(raw) if distances and any(PLAIN < distance.ulps < np.inf for distance in distances)]
    doubtful.sort(key=lambda row: -max(_finite(distance) for distance in raw[row] or ()))
    chosen, unknown = doubtful[:ASKED], doubtful[ASKED:]
    settled = list(raw)
    reconsidered = judged.distances([points[row][0].at(points[row][1]) for row in chosen]) if chosen else []
    for row, distances in zip(chosen, reconsidered, strict=True):
        settled[row] = distances
    for row in unknown:
        settled[row] = None
    return settled


def _worst(judged: Judged, points: Sequence[Point], settled: Sequence[Distances | None], what: What) -> Measurement | None:
    """The worst of the measurements, or a worse one nearby; None where no distance is known."""
    measurements = _measured(points, settled, what)
    if not measurements:
        return None
    worst = max(measurements, key=lambda measurement: measurement.distance.ulps)
    width = 10.0 ** (1 / PER_DECADE)
    for _ in range(CLIMBS if not worst.family.is_point else 0):
        sizes = (worst.size / width, worst.size / width**0.5, worst.size * width**0.5, worst.size * width)
        distances = judged.distances([worst.family.at(size) for size in sizes])
        nearby = _measured([(worst.family, size) for size in sizes], distances, what)
        worst = max([worst, *nearby], key=lambda measurement: measurement.distance.ulps)
        width **= 0.5
    return worst


def _measured(points: Sequence[Point], distances: Sequence[Distances | None], what: What) -> list[Measurement]:
    """The measurements of the value or the gradient at these points, those with a finite distance."""
    pairs = zip(points, distances, strict=True)
    measurements = [Measurement(*point, distances_of_both.of(what)) for point, distances_of_both in pairs if distances_of_both]
    return [measurement for measurement in measurements if np.isfinite(measurement.distance.ulps)]


def _finite(distance: Distance) -> float:
    return distance.ulps if np.isfinite(distance.ulps) else 0.0


def _ulps(distance: Distance) -> float | None:
    return float(distance.ulps) if np.isfinite(distance.ulps) else None
