"""The thresholds of a function: the sizes along each family at which its value and its gradient first turn non-finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nandetect.compare.families import Family
from nandetect.compare.judged import WHATS, Judged
from nandetect.compare.results import Threshold, What

# Sizes of the finer grid between two sizes, and how often a bracket is refined by one.
FINER, ROUNDS = 8, 4
# Non-finite points of a family that are compared with the truth; where the truth is finite at none of them, there is no fault.
ASKED = 6


@dataclass(slots=True)
class _Bracket:
    """A size at which the function is finite (`low`, 0 where there is none) and a larger one at which it is not (`high`)."""

    family: Family
    what: What
    low: float
    high: float
    fault: bool
    lasting: bool


def thresholds(judged: Judged, families: Sequence[Family]) -> list[Threshold]:
    """The thresholds of the value, then those of the gradient: one for each family along which it does not stay finite."""
    brackets = list(_coarse(judged, families))
    for _ in range(ROUNDS):
        _refine(judged, [bracket for bracket in brackets if bracket.low > 0])
    return [_threshold(judged, bracket) for bracket in brackets]


def _coarse(judged: Judged, families: Sequence[Family]) -> Iterator[_Bracket]:
    """The brackets between sizes of the families' own grids."""
    points = [(family, float(size)) for family in families for size in family.grid]
    outputs = judged.runner([family.at(size) for family, size in points])
    for what in WHATS:
        bad = outputs.bad(what)
        for family in families:
            rows = [row for row, (grown, _) in enumerate(points) if grown is family and outputs.usable[row]]
            broken = [row for row in rows if bad[row]]
            if not broken:
                continue
            asked = broken[:: max(1, len(broken) // ASKED)]
            fault = next((row for row in asked if judged.is_broken(family.at(points[row][1]), what)), None)
            first = broken[0] if fault is None else fault
            before = rows[rows.index(first) - 1] if rows.index(first) else None
            # A point before that is not finite either, as the truth is not, leaves nothing between the two to look for.
            low = 0.0 if before is None or bad[before] else points[before][1]
            yield _Bracket(family, what, low, points[first][1], fault is not None, _lasts(bad[rows[rows.index(first) :]]))


def _lasts(bad: np.ndarray) -> bool:
    """Whether the function is not finite at half of the sizes or more."""
    return bool(bad.mean() >= 0.5)


def _refine(judged: Judged, brackets: list[_Bracket]) -> None:
    """Narrow every bracket to one step of a finer grid inside it."""
    if not brackets:
        return
    sizes = [np.geomspace(bracket.low, bracket.high, FINER + 2)[1:-1] for bracket in brackets]
    outputs = judged.runner(
        [bracket.family.at(float(size)) for bracket, inner_sizes in zip(brackets, sizes, strict=True) for size in inner_sizes]
    )
    for number, (bracket, inner_sizes) in enumerate(zip(brackets, sizes, strict=True)):
        bad = outputs.bad(bracket.what)[number * FINER : (number + 1) * FINER]
        first = int(np.argmax(bad)) if bad.any() else FINER
        edges = [bracket.low, *map(float, inner_sizes), bracket.high]
        bracket.low, bracket.high = edges[first], edges[first + 1]


def _threshold(judged: Judged, bracket: _Bracket) -> Threshold:
    outputs = judged.runner([bracket.family.at(bracket.high)])
    numbers = outputs.values if bracket.what == "value" else outputs.gradients
    broken = numbers[~np.isfinite(numbers)]
    made = "nan" if np.isnan(broken).any() or not broken.size else "inf" if broken[0] > 0 else "-inf"
    return Threshold(
        family=bracket.family.name,
        phrase=bracket.family.phrase,
        what=bracket.what,
        finite_to=bracket.low or None,
        broken_from=bracket.high,
        made=made,
        fault=bracket.fault,
        lasting=bracket.lasting,
    )
