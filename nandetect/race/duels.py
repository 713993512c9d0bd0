"""Every entrant against every other, and who beat them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Literal

from nandetect.race.result import Duel, SeedRun, Standing
from nandetect.race.significance import ALPHA, DEVIATIONS, LEAST_ACCURACY, LEAST_RATIO, holm, sign_flip


def duels(standings: Sequence[Standing], limit: float) -> tuple[Duel, ...]:
    """All pairs, judged. `limit` is the time that a run counts with which did not reach the target."""
    pairs = [(first, second, *_differences(first, second, limit)) for first, second in combinations(standings, 2)]
    p_values = [sign_flip(differences) for *_, differences in pairs]
    return tuple(
        Duel(
            first=first.name,
            second=second.name,
            by=by,
            advantage=math.exp(median(differences)) if by == "time" else median(differences),
            p=p,
            p_adjusted=adjusted,
            needed=math.exp(_needed(first, second, by)) if by == "time" else _needed(first, second, by),
            winner=_winner(first, second, by, differences) if adjusted <= ALPHA else None,
        )
        for (first, second, by, differences), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    )


def champion(standings: Sequence[Standing], fought: Sequence[Duel]) -> str | None:
    """The entrant that won each of its duels."""
    for standing in standings:
        own = [duel for duel in fought if standing.name in (duel.first, duel.second)]
        if all(duel.winner == standing.name for duel in own):
            return standing.name
    return None


def _differences(first: Standing, second: Standing, limit: float) -> tuple[Literal["time", "held-out"], list[float]]:
    """What the two are judged by, and for every seed the first less the second; of times the logarithms, so that no seed outweighs."""
    runs = list(zip(first.runs, second.runs, strict=True))
    if first.at_target or second.at_target:
        return "time", [math.log(_time(mine, limit) / _time(theirs, limit)) for mine, theirs in runs]
    return "held-out", [mine.held_out_accuracy - theirs.held_out_accuracy for mine, theirs in runs]


def _time(run: SeedRun, limit: float) -> float:
    return run.target.seconds if run.target else limit


def _winner(first: Standing, second: Standing, by: str, differences: list[float]) -> str | None:
    """Who is better by enough to matter, where most seeds and their sum say the same."""
    middle = median(differences)
    if abs(middle) < _needed(first, second, by) or middle * sum(differences) <= 0:
        return None
    first_is_better = middle < 0 if by == "time" else middle > 0
    return first.name if first_is_better else second.name


def _needed(first: Standing, second: Standing, by: str) -> float:
    """The least median difference that counts: of the logarithms of times, or of accuracies."""
    if by != "time":
        return LEAST_ACCURACY
    return max(math.log(LEAST_RATIO), DEVIATIONS * _noise(first, second))


def _noise(*standings: Standing) -> float:
    """The deviation of the logarithm of what a step took, between the seeds of one entrant."""
    costs = [[math.log(cost) for run in standing.runs if (cost := _cost(run))] for standing in standings]
    squares = sum((cost - fmean(own)) ** 2 for own in costs for cost in own)
    return math.sqrt(squares / max(sum(max(len(own) - 1, 0) for own in costs), 1))


def _cost(run: SeedRun) -> float:
    """Seconds a step until the target; over the whole run where it was not reached, 0 where nothing was run."""
    if run.target:
        return run.target.seconds / run.target.steps
    return run.seconds / run.steps if run.steps else 0.0
