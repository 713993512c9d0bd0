"""Where along each family the value and the gradient first turn non-finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nandetect.compare.families import Family
from nandetect.compare.judged import WHATS, Judged
from nandetect.compare.results import Threshold, What

# Sizes of the finer grid that is laid between two sizes, and how often that is done.
FINER, ROUNDS = 8, 4
# Non-finite points of one family that are held against the truth; where it is not finite at any of them, there is no fault.
ASKED = 6


@dataclass(slots=True)
class _Bracket:
    """A size at which the function is finite (0: there is none) and a larger one at which it is not."""

    family: Family
    what: What
    low: float
    high: float
    fault: bool
    lasting: bool


def thresholds(judged: Judged, families: Sequence[Family]) -> list[Threshold]:
    """One for each family and each of value and gradient that does not stay finite, in the order of the families."""
    brackets = list(_coarse(judged, families))
    for _ in range(ROUNDS):
        _refine(judged, [bracket for bracket in brackets if bracket.low > 0])
    return [_told(judged, bracket) for bracket in brackets]


def _coarse(judged: Judged, families: Sequence[Family]) -> Iterator[_Bracket]:
    """The brackets that the sizes of the grid give."""
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
            # Where the point before is not finite either, but as the truth is, there is nothing between them to look for.
            low = 0.0 if before is None or bad[before] else points[before][1]
            yield _Bracket(family, what, low, points[first][1], fault is not None, _lasts(bad[rows[rows.index(first) :]]))


def _lasts(bad: np.ndarray) -> bool:
    """Whether most of the sizes are not finite."""
    return bool(bad.mean() >= 0.5)


def _refine(judged: Judged, brackets: list[_Bracket]) -> None:
    """Narrow every bracket to one step of a finer grid in it."""
    if not brackets:
        return
    sizes = [np.geomspace(bracket.low, bracket.high, FINER + 2)[1:-1] for bracket in brackets]
    outputs = judged.runner([bracket.family.at(float(size)) for bracket, row in zip(brackets, sizes, strict=True) for size in row])
    for number, (bracket, row) in enumerate(zip(brackets, sizes, strict=True)):
        bad = outputs.bad(bracket.what)[number * FINER : (number + 1) * FINER]
        first = int(np.argmax(bad)) if bad.any() else FINER
        edges = [bracket.low, *map(float, row), bracket.high]
        bracket.low, bracket.high = edges[first], edges[first + 1]


def _told(judged: Judged, bracket: _Bracket) -> Threshold:
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
