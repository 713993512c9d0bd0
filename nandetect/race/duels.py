"""The duels of every entrant with every other, and the one that won them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Literal

from nandetect.race.result import Duel, SeedRun, Standing
from nandetect.race.significance import ALPHA, DEVIATIONS, LEAST_ACCURACY, LEAST_RATIO, holm, sign_flip


def duels(standings: Sequence[Standing], limit: float) -> tuple[Duel, ...]:
    """The duels of all pairs. A run that did not reach the target counts as if it had at `limit`, in seconds."""
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


def champion(standings: Sequence[Standing], duels_fought: Sequence[Duel]) -> str | None:
    """The entrant that won each of its duels; None where there is no such one."""
    for standing in standings:
        own_duels = [duel for duel in duels_fought if standing.name in (duel.first, duel.second)]
        if all(duel.winner == standing.name for duel in own_duels):
            return standing.name
    return None


def _differences(first: Standing, second: Standing, limit: float) -> tuple[Literal["time", "held-out"], list[float]]:
    """The measure that two are judged by, and for each seed the first's less the second's, of times in logarithms: no seed outweighs."""
    runs = list(zip(first.runs, second.runs, strict=True))
    if first.at_target or second.at_target:
        return "time", [math.log(_time(mine, limit) / _time(theirs, limit)) for mine, theirs in runs]
    return "held-out", [mine.held_out_accuracy - theirs.held_out_accuracy for mine, theirs in runs]


def _time(run: SeedRun, limit: float) -> float:
    return run.target.seconds if run.target else limit


def _winner(first: Standing, second: Standing, by: str, differences: list[float]) -> str | None:
    """The entrant that is better by enough to matter, where the median of the seeds and their sum favour the same one."""
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
    """The standard deviation of the logarithm of a step's time between the seeds of one entrant, pooled over the entrants."""
    costs = [[math.log(cost) for run in standing.runs if (cost := _cost(run))] for standing in standings]
    squares = sum((cost - fmean(seed_costs)) ** 2 for seed_costs in costs for cost in seed_costs)
    return math.sqrt(squares / max(sum(max(len(seed_costs) - 1, 0) for seed_costs in costs), 1))


def _cost(run: SeedRun) -> float:
    """Seconds a step up to the target, or over the whole run where it was not reached; 0 where nothing was run."""
    if run.target:
        return run.target.seconds / run.target.steps
    return run.seconds / run.steps if run.steps else 0.0
