"""The records of a race's end: a run of one seed, the standing of an entrant over all seeds, the duel of two entrants."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from nandetect.race.settings import RaceSettings
from nandetect.records import Finding
from nandetect.train.settings import Reached


class OverSeeds(NamedTuple):
    """The least, the median and the largest of a number over the seeds; it is infinite for a seed that did not get there."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> OverSeeds:
        """The three of one value for each seed. The median is infinite where one of the two values in the middle is."""
        values = list(values)
        return cls(min(values), median(values), max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRun:
    """One seed of an entrant.

    `target` is the first epoch in which enough training samples were classified right, `settled` the first in which moreover the loss
    was 0.000, below 0.0005. A run that a non-finite value ended, at `fault_step`, reached neither, and its accuracies are 0. `loss` is the
    mean of the last whole epoch; `seconds` is all that its clock showed.
    """

    seed: int
    steps: int
    epochs: float
    seconds: float
    steps_per_second: float | None
    loss: float | None
    accuracy: float
    held_out_accuracy: float
    target: Reached | None
    settled: Reached | None
    fault_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyCurve:
    """Accuracy against an entrant's own time, over its seeds; None where no seed has been measured yet."""

    seconds: tuple[float, ...]
    training: tuple[OverSeeds | None, ...]
    held_out: tuple[OverSeeds | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An entrant at the end: `training` are its settings, `runs` its seeds; `compile_seconds` is what its first call took."""

    name: str
    training: dict[str, object]
    parameters: int
    compile_seconds: float
    runs: tuple[SeedRun, ...]
    curve: AccuracyCurve

    @property
    def at_target(self) -> int:
        """Seeds that reached the target."""
        return sum(run.target is not None for run in self.runs)

    def over_seeds(self, what: str) -> OverSeeds | None:
        """A field of `SeedRun` over the seeds, or `target.seconds` and the like; None where a seed has none of it."""
        values = [_field(run, what) for run in self.runs]
        known = [value for value in values if value is not None]
        return OverSeeds.of(known) if len(known) == len(values) else None


def _field(run: SeedRun, what: str) -> float | None:
    """A number of a run; of an epoch that was never reached, infinite."""
    outer, _, inner = what.partition(".")
    value = getattr(run, outer)
    return value if not inner else math.inf if value is None else getattr(value, inner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Two entrants compared over the seeds, `winner` None where neither is better.

    By `time` to the target, where one of them reaches it, `advantage` is the median over the seeds of the first one's time over the
    second one's; by `held-out` accuracy at the end it is the median difference, first less second. To win takes an advantage of at least
    `needed` (a time ratio that far from 1 either way, or a difference): what copies of one program differ by is no merit. `p` is that of
    the exact sign-flip test, `p_adjusted` after Holm's correction for the number of pairs.
    """

    first: str
    second: str
    by: Literal["time", "held-out"]
    advantage: float
    p: float
    p_adjusted: float
    needed: float
    winner: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """The result of a race; `winner` beat every other entrant. `rounds` are the turns that every entrant had with every seed."""

    settings: RaceSettings
    data: str
    train_samples: int
    held_out_samples: int
    stopped: Literal["finished", "interrupted"]
    rounds: int
    seconds: float
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    winner: str | None
    findings: tuple[Finding, ...] = ()
