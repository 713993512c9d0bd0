"""The comparison: two functions, one scene, several dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.compare import equivalence, first_divergence, input_code, pair, shrink, timing, verdict
from nandetect.compare.accuracy import Lost, Place, lost
from nandetect.compare.families import Args, Family, families
from nandetect.compare.judged import WHATS, Judge
from nandetect.compare.limits import limits
from nandetect.compare.oracle import Oracle
from nandetect.compare.pair import Side
from nandetect.compare.results import Breakage, Comparison, Input, Judged, Parting, Sameness, Survey, What, Worst
from nandetect.compare.runner import Runner
from nandetect.compare.scene import Scene, scene
from nandetect.compare.thresholds import thresholds
from nandetect.compare.training import training
from nandetect.compare.ulps import Gauge
from nandetect.errors import UsageError

# Numbers in the swept array: exact arithmetic takes about a tenth of a millisecond for each, hundreds of times over.
MOST, LARGE = 1024, 128
DTYPES = ("float32", "bfloat16", "float16", "float64")
# Families in which one number alone grows: there a limit of the type is met at its own size.
LIMITED = ("gap, wrong class", "gap, right class")
SURVEYED = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to compare and how. Raises `UsageError` where it means nothing."""

    first: str
    second: str
    labels: str | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    archive: Path | None = None
    dtype: str = "float32"
    max_ulp: float = 16.0
    seed: int = 0
    train: bool = False
    x64: bool = False
    timed: bool = True
    surveyed: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype} is not known; give {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
        if self.dtype == "float64" and not self.x64 and jnp.result_type(float) != jnp.float64:
            raise UsageError("--dtype float64 needs --x64: without it JAX computes in float32")
        if not self.max_ulp > 0:
            raise UsageError(f"--max-ulp {self.max_ulp:g}: give a number above 0")
        if self.archive is not None and (self.shape is not None or self.classes is not None or self.labels is not None):
            raise UsageError("--args gives the arguments: leave --shape, --classes and --labels out")
        if self.classes is not None and (self.classes < 1 or (self.shape and self.shape[-1] != self.classes)):
            raise UsageError(f"--classes {self.classes}: give the last of the sizes of --shape, or leave one of the two out")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: give 0 to {2**32 - 1}")
        if self.shape is not None and any(size < 1 for size in self.shape):
            raise UsageError(f"--shape {','.join(map(str, self.shape))}: give sizes of 1 or more")


def compare(asked: Asked) -> Comparison:
    """Hold both functions against the truth in the dtype asked for, and survey them in the others."""
    with _x64(asked.x64):
        return between(pair.load(asked.first, asked.second), asked)


@contextmanager
def _x64(wanted: bool) -> Iterator[None]:
    before = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_x64", wanted or before)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def between(sides: tuple[Side, Side], asked: Asked) -> Comparison:
    """`compare` of functions that are at hand."""
    settled = scene(sides, jnp.dtype(asked.dtype), asked.labels, asked.shape, asked.classes, asked.archive)
    if settled.size > MOST:
        raise UsageError(f"`{settled.names[0]}` of shape {list(settled.shape)} has {settled.size:,} numbers: give {MOST:,} or fewer")
    courts = [_Court(sides, settled, dtype, asked.seed) for dtype in [asked.dtype, *_others(asked)]]
    judged = tuple(_judged(at, courts, asked) for at in range(2))
    first, second = judged
    trained = training(sides, settled, asked.seed, asked.dtype) if asked.train else None
    timed = timing.timing(sides, settled, jnp.dtype(asked.dtype)) if asked.timed else None
    same = courts[0].same
    return Comparison(
        verdict=verdict.sentence((first, second), same, timed, asked.max_ulp),
        names=(first.name, second.name),
        dtype=asked.dtype,
        max_ulp=asked.max_ulp,
        labels=settled.labels,
        shapes=settled.shapes,
        parameters=settled.names,
        sameness=same,
        judged=(first, second),
        timing=timed,
        training=trained,
        notes=tuple(_notes(settled, (first, second))),
        findings=verdict.findings((first, second), same, asked.max_ulp),
    )


def _others(asked: Asked) -> list[str]:
    return [dtype for dtype in SURVEYED if dtype != asked.dtype] if asked.surveyed else []


class _Court:
    """Both functions' judges in one dtype, and what the functions are to one another."""

    def __init__(self, sides: tuple[Side, Side], scene: Scene, dtype: str, seed: int):
        self.sides, self.scene, self.dtype = sides, scene, jnp.dtype(dtype)
        self.families: list[Family] = families(scene, seed, self.dtype)
        self.judges, self.same = _judges(sides, scene, self.dtype)
        self._smaller: dict[tuple[int, tuple[int, ...]], Judge] = {}

    def judge_for(self, which: int) -> Callable[[Scene], Judge]:
        """The judge of one function for another shape."""

        def made(scene: Scene) -> Judge:
            key = (which, scene.shape)
            if key not in self._smaller:
                self._smaller[key] = _judges(self.sides, scene, self.dtype, self.same)[0][which]
            return self._smaller[key]

        return made


def _judges(sides: tuple[Side, Side], scene: Scene, dtype: Any, same: Sameness | None = None) -> tuple[list[Judge], Sameness]:
    runners = [Runner(side.name, side.function, scene, dtype) for side in sides]
    oracles = [Oracle(side.function, scene, dtype) for side in sides]
    inputs = [runners[0].cast(args) for args in equivalence.points(scene)]
    same = same or equivalence.sameness(oracles[0], oracles[1], inputs)
    for oracle, other in zip(oracles, reversed(oracles), strict=True):
        oracle.other = other if same.relation == "same" else None
    return [Judge(runner, oracle, Gauge(oracle, inputs)) for runner, oracle in zip(runners, oracles, strict=True)], same


def _judged(which: int, courts: list[_Court], asked: Asked) -> Judged:
    court = courts[0]
    judge = court.judges[which]
    survey, found = _survey(court, which)
    breakages = tuple(one for what in WHATS if (one := _breakage(court, which, survey, what)))
    worst = [one for one in (survey.worst_value, survey.worst_gradient) if one and one.ulps > asked.max_ulp]
    torn = None
    if worst:
        what = worst[0].what
        torn, shown = _inaccuracy(court, which, what, found.worst[what], asked.max_ulp)
        survey = replace(survey, worst_value=shown) if what == "value" else replace(survey, worst_gradient=shown)
    return Judged(
        name=judge.runner.name,
        sound=not breakages and not worst,
        exact=judge.oracle.exact.is_exact,
        unsupported=judge.oracle.exact.unsupported,
        surveys=(survey, *(_survey(other, which, brief=True)[0] for other in courts[1:])),
        breakages=breakages,
        parting=torn,
    )


def _survey(court: _Court, which: int, brief: bool = False) -> tuple[Survey, Lost]:
    judge = court.judges[which]
    grown = [family for family in court.families if not family.is_point]
    ranks = {family.name: family.rank for family in grown}
    brief = brief or court.scene.size > LARGE
    found = lost(judge, [family for family in court.families if family.rank < 3] if brief else court.families)
    worst = {what: _worst(judge, what, place) for what, place in found.worst.items()}
    survey = Survey(
        dtype=court.dtype.name,
        thresholds=tuple(sorted(thresholds(judge, grown), key=lambda one: (not one.lasting, one.finite_to is None, ranks[one.family]))),
        limits=tuple(limits(judge, [family for family in grown if family.name in LIMITED])),
        samples=tuple(found.samples),
        worst_value=worst.get("value"),
        worst_gradient=worst.get("gradient"),
    )
    return survey, found


def _worst(judge: Judge, what: What, place: Place) -> Worst:
    return Worst(
        what=what,
        ulps=place.distance.ulps,
        got=place.distance.got,
        truth=place.distance.truth,
        input=_input(judge, place.family, place.size, place.args),
    )


def _input(judge: Judge, family: Family, size: float, args: Args) -> Input:
    runner = judge.runner
    code = input_code.code(runner.scene.names, runner.cast(args), runner.dtype)
    return Input(family=family.name, phrase=family.phrase, at=size, code=code)


def _breakage(court: _Court, which: int, survey: Survey, what: What) -> Breakage | None:
    """The smallest input at which the function is not finite where the truth is: of a threshold, else of a single point."""
    judge = court.judges[which]
    named = {family.name: family for family in court.families}
    broken = [one for one in survey.thresholds if one.fault and one.what == what]
    steady = [(named[one.family], one.broken_from) for one in broken if one.lasting and one.finite_to is not None]
    points = [] if steady else [(one, 1.0) for one in court.families if one.is_point and judge.is_broken(one.at(1.0), what)]
    places = [*steady, *points, *((named[one.family], one.broken_from) for one in broken)]
    if not places:
        return None
    family, size = places[0]
    shown, args = shrink.smallest(judge, family.at(size), lambda one, trial: one.is_broken(trial, what), court.judge_for(which))
    distance = shown.distance(args, what)
    assert distance is not None
    given = list(map(jnp.asarray, shown.runner.cast(args)))
    return Breakage(
        what=what,
        got=distance.got,
        truth=distance.truth,
        input=_input(shown, family, size, args),
        report=first_divergence.origin(judge.runner.name, judge.runner.function, given, what),
    )


def _inaccuracy(court: _Court, which: int, what: What, place: Place, max_ulp: float) -> tuple[Parting | None, Worst]:
    """The equation that loses the most at the worst input, made as small as still loses a quarter of that."""
    judge = court.judges[which]
    enough = max(max_ulp, place.distance.ulps / 4)

    def shows(one: Judge, trial: Args) -> bool:
        found = one.distance(trial, what)
        return found is not None and np.isfinite(found.ulps) and found.ulps > enough

    shown, args = shrink.smallest(judge, place.args, shows, court.judge_for(which))
    distance = shown.distance(args, what)
    assert distance is not None
    there = _input(shown, place.family, place.size, args)
    worst = Worst(what=what, ulps=distance.ulps, got=distance.got, truth=distance.truth, input=there)
    given = list(map(jnp.asarray, shown.runner.cast(args)))
    exact = judge.oracle.exact.is_exact
    return first_divergence.inaccurate(judge.runner.function, given, shown.runner.dtype, what) if exact else None, worst


def _notes(scene: Scene, judged: tuple[Judged, Judged]) -> list[str]:
    notes = []
    for one in judged:
        if not one.exact:
            notes.append(f"no exact rule is known for {', '.join(one.unsupported)} in `{one.name}`: float64 stands in for its truth")
    return notes
