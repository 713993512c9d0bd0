"""A race in words: the verdict in a sentence, the cells of the table, how it was judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.race.significance import ALPHA, smallest_p

if TYPE_CHECKING:
    from nandetect.race.result import Duel, OverSeeds, RaceResult, Standing


def verdict(result: RaceResult) -> str:
    """Who won, by what lead and with what p; or why nobody did."""
    seeds = result.settings.seeds
    if not result.rounds:
        return "no winner: the race was interrupted before everyone had a turn"
    if result.winner is None:
        return f"no winner: {_why_nobody(result)}"
    own = [duel for duel in result.duels if result.winner in (duel.first, duel.second)]
    by = own[0].by
    first, *others = sorted(result.standings, key=lambda standing: standing.name != result.winner)
    rest = ", ".join(f"`{standing.name}` {_did(standing, by)}" for standing in others)
    p = max(duel.p_adjusted for duel in own)
    return f"`{first.name}` wins: {_event(result, by)} {_did(first, by)} (median of {_seeds(seeds)}), {rest}; {_p(p)}"


def _why_nobody(result: RaceResult) -> str:
    seeds, pairs = result.settings.seeds, len(result.duels)
    best = smallest_p(seeds, pairs)
    if best > ALPHA:
        enough = math.ceil(1 + math.log2(pairs / ALPHA))
        return f"{_seeds(seeds)} cannot show one (p is {best:.2g} at best); give --seeds {enough} or more"
    if pairs > 1:
        unbeaten = [standing.name for standing in result.standings if not any(_lost(duel, standing.name) for duel in result.duels)]
        return f"nobody beats every other; not beaten by anyone: {', '.join(f'`{name}`' for name in unbeaten) or 'none'}"
    duel = result.duels[0]
    both = ", ".join(f"`{standing.name}` {_did(standing, duel.by)}" for standing in result.standings)
    small = f", but that is less apart than {_needed(duel)}, which this machine cannot tell" if duel.p_adjusted <= ALPHA else ""
    return f"{_event(result, duel.by)}: {both} (median of {_seeds(seeds)}); {_p(duel.p_adjusted)}{small}"


def _lost(duel: Duel, name: str) -> bool:
    return duel.winner not in (None, name) and name in (duel.first, duel.second)


def _needed(duel: Duel) -> str:
    return f"{duel.needed - 1:.0%} of the time" if duel.by == "time" else f"{duel.needed:.0%} of the samples"


def _event(result: RaceResult, by: str) -> str:
    return target(result) if by == "time" else "held-out samples right at the end"


def target(result: RaceResult) -> str:
    """The goal that the time is taken to."""
    wanted = result.settings.target
    return "every training sample right" if wanted == 1 else f"{wanted * 100:.4g}% of the training samples right"


def _did(standing: Standing, by: str) -> str:
    """`after 0.21 s`, `in 3 of 8 seeds`, `never`; by accuracy, `81.3%`."""
    if by != "time":
        accuracy = standing.over_seeds("held_out_accuracy")
        return f"{accuracy.median:.1%}" if accuracy else "-"
    seconds = standing.over_seeds("target.seconds")
    assert seconds is not None
    if math.isfinite(seconds.median):
        return f"after {wording.race_time(seconds.median)}"
    return f"in {standing.at_target} of {_seeds(len(standing.runs))}" if standing.at_target else "never"


def _p(p: float) -> str:
    return f"p = {p:.1g}" if p < 0.01 else f"p = {p:.2g}"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def rows(result: RaceResult) -> list[tuple[str, list[str]]]:
    """The rows of the table: a name, and for every entrant its cell."""
    every = result.standings
    table = [
        (target(result), [f"{standing.at_target} of {_seeds(len(standing.runs))}" for standing in every]),
        ("  after", [_durations(standing.over_seeds("target.seconds")) for standing in every]),
        ("  in epoch", [_span(standing.over_seeds("target.epoch"), wording.whole) for standing in every]),
        ("and loss 0.000 in epoch", [_span(standing.over_seeds("settled.epoch"), wording.whole) for standing in every]),
        ("accuracy at the end", [_span(standing.over_seeds("accuracy"), _percent, "%") for standing in every]),
        ("  held out", [_span(standing.over_seeds("held_out_accuracy"), _percent, "%") for standing in every]),
        ("loss at the end", [_span(standing.over_seeds("loss"), lambda loss: f"{loss:.3f}") for standing in every]),
        ("steps per second", [_span(standing.over_seeds("steps_per_second"), wording.whole) for standing in every]),
        ("epochs in its time", [_span(standing.over_seeds("epochs"), wording.whole) for standing in every]),
        ("compiling, apart", [wording.race_time(standing.compile_seconds) for standing in every]),
    ]
    if result.findings:
        table.append(("turned non-finite", [_faults(standing) for standing in every]))
    return table


def _span(spread: OverSeeds | None, text: Callable[[float], str], unit: str = "") -> str:
    """`9 / 12 / 14`, or one number where all are the same."""
    if spread is None:
        return "-"
    parts = ["never" if math.isinf(value) else text(value) for value in (spread.min, spread.median, spread.max)]
    if len(set(parts)) == 1:
        return parts[0] if parts[0] == "never" else parts[0] + unit
    return " / ".join(parts) + unit


def _durations(spread: OverSeeds | None) -> str:
    """The times of a spread, all in the unit of the largest finite one."""
    finite = [value for value in spread or () if math.isfinite(value)]
    if spread is None or not finite:
        return "never"
    unit, factor = ("ms", 1000.0) if max(finite) < 1 else ("s", 1.0)
    return _span(spread, lambda value: f"{value * factor:.3g}", f" {unit}")


def _percent(share: float) -> str:
    return f"{share * 100:.1f}".removesuffix(".0") if share == 1 else f"{share * 100:.1f}"


def _faults(standing: Standing) -> str:
    """How many runs turned non-finite, and the first step in which one did."""
    steps = [run.fault_step for run in standing.runs if run.fault_step is not None]
    return f"{len(steps)} of {_seeds(len(standing.runs))}, step {min(steps)} first" if steps else "no"


def conditions(result: RaceResult) -> str:
    """What the race was run on, and how."""
    asked = result.settings
    ended = "interrupted after" if result.stopped == "interrupted" else "in"
    return (
        f"min / median / max of {_seeds(asked.seeds)}; {result.train_samples:,} training samples of {result.data}, "
        f"{result.held_out_samples:,} held out; {result.rounds:,} rounds of turns {ended} {result.seconds:.1f} s"
    )


def judgement(result: RaceResult) -> list[str]:
    """How the race was judged; where more than two raced, the verdict on every pair."""
    pairs = len(result.duels)
    corrected = f", p corrected for {pairs} pairs (Holm)" if pairs > 1 else ""
    needed = sorted({_needed(duel) for duel in result.duels})
    lines = [
        f"judged by a paired exact sign-flip test over the seeds, two-sided{corrected}; to win takes p <= {ALPHA:g} "
        f"and a lead of {' or '.join(needed)} (from the noise between the seeds of one entrant)"
    ]
    if pairs > 1:
        lines += [_duel(duel) for duel in result.duels]
    return lines


def _duel(duel: Duel) -> str:
    """The verdict on one pair."""
    how = f"{duel.advantage:.2f} times its time" if duel.by == "time" else f"{duel.advantage:+.1%} held out"
    better = f"`{duel.winner}`" if duel.winner else "neither"
    return f"`{duel.first}` against `{duel.second}`: {how}, {_p(duel.p_adjusted)}, {better} better"
