"""The judgement of one of the two functions: where it is finite, what it loses, the smallest inputs that show it, and the equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.compare import equivalence, first_divergence, input_code, shrink
from nandetect.compare.accuracy import Accuracy, Measurement, accuracy
from nandetect.compare.families import Family, families
from nandetect.compare.judged import WHATS, Judged
from nandetect.compare.limits import limits
from nandetect.compare.oracle import Oracle
from nandetect.compare.ordinary import Args
from nandetect.compare.pair import Side
from nandetect.compare.parameters import Scene
from nandetect.compare.results import Breakage, Input, Judgement, Parting, Sameness, Survey, Threshold, What, Worst
from nandetect.compare.runner import Runner
from nandetect.compare.thresholds import thresholds
from nandetect.compare.ulps import Gauge

# Numbers of the swept array beyond which only the first families are measured.
LARGE = 128
# Families in which one number alone grows: a limit of the type is met there at its own size.
LIMITED = ("gap, wrong class", "gap, right class")


class Pairing:
    """Both functions in one dtype, and whether they are the same one (`same`)."""

    def __init__(self, sides: tuple[Side, Side], scene: Scene, dtype: str, seed: int):
        self.sides, self.scene, self.dtype = sides, scene, jnp.dtype(dtype)
        self.families: list[Family] = families(scene, seed, self.dtype)
        self.judged, self.same = _both(sides, scene, self.dtype)
        self._reshaped: dict[tuple[int, tuple[int, ...]], Judged] = {}

    def judged_for(self, which: int) -> Callable[[Scene], Judged]:
        """A function that gives one of the two functions (0 or 1), judged in a scene of another shape."""

        def reshaped(scene: Scene) -> Judged:
            key = (which, scene.shape)
            if key not in self._reshaped:
                self._reshaped[key] = _both(self.sides, scene, self.dtype, self.same)[0][which]
            return self._reshaped[key]

        return reshaped


def _both(sides: tuple[Side, Side], scene: Scene, dtype: np.dtype, same: Sameness | None = None) -> tuple[list[Judged], Sameness]:
    """The functions with their runners, oracles and gauges, and their sameness, which is computed only where `same` is not given."""
    runners = [Runner(side.name, side.function, scene, dtype) for side in sides]
    oracles = [Oracle(side.function, scene, dtype) for side in sides]
    inputs = [runners[0].cast(args) for args in equivalence.points(scene)]
    same = same or equivalence.sameness(oracles[0], oracles[1], inputs)
    for oracle, other in zip(oracles, reversed(oracles), strict=True):
        oracle.other = other if same.relation == "same" else None
    return [Judged(runner, oracle, Gauge(oracle, inputs)) for runner, oracle in zip(runners, oracles, strict=True)], same


def judgement(which: int, pairings: list[Pairing], max_ulp: float) -> Judgement:
    """The judgement of one of the functions (0 or 1) in the first pairing's dtype, with its surveys in the dtypes of the others."""
    pairing = pairings[0]
    judged = pairing.judged[which]
    survey, measured = _survey(pairing, which)
    breakages = tuple(breakage for what in WHATS if (breakage := _breakage(pairing, which, survey, what)))
    inaccurate = [worst for worst in (survey.worst_value, survey.worst_gradient) if worst and worst.ulps > max_ulp]
    parting = None
    if inaccurate:
        what = inaccurate[0].what
        parting, shrunk_worst = _inaccuracy(pairing, which, what, measured.worst[what], max_ulp)
        survey = replace(survey, worst_value=shrunk_worst) if what == "value" else replace(survey, worst_gradient=shrunk_worst)
    return Judgement(
        name=judged.runner.name,
        sound=not breakages and not inaccurate,
        exact=judged.oracle.exact.is_exact,
        unsupported=judged.oracle.exact.unsupported,
        surveys=(survey, *(_survey(other, which, brief=True)[0] for other in pairings[1:])),
        breakages=breakages,
        parting=parting,
    )


def _survey(pairing: Pairing, which: int, brief: bool = False) -> tuple[Survey, Accuracy]:
    """The survey of one function in one dtype, and the measurements behind it."""
    judged = pairing.judged[which]
    growing = [family for family in pairing.families if not family.is_point]
    ranks = {family.name: family.rank for family in growing}
    brief = brief or pairing.scene.size > LARGE
    measured = accuracy(judged, [family for family in pairing.families if family.rank < 3] if brief else pairing.families)
    worst = {what: _worst(judged, what, measurement) for what, measurement in measured.worst.items()}

    def order(threshold: Threshold) -> tuple[bool, bool, int]:
        return not threshold.lasting, threshold.finite_to is None, ranks[threshold.family]

    survey = Survey(
        dtype=pairing.dtype.name,
        thresholds=tuple(sorted(thresholds(judged, growing), key=order)),
        limits=tuple(limits(judged, [family for family in growing if family.name in LIMITED])),
        samples=tuple(measured.samples),
        worst_value=worst.get("value"),
        worst_gradient=worst.get("gradient"),
    )
    return survey, measured


def _worst(judged: Judged, what: What, measurement: Measurement) -> Worst:
    return Worst(
        what=what,
        ulps=measurement.distance.ulps,
        got=measurement.distance.got,
        truth=measurement.distance.truth,
        input=_input(judged, measurement.family, measurement.size, measurement.args),
    )


def _input(judged: Judged, family: Family, size: float, args: Args) -> Input:
    runner = judged.runner
    code = input_code.code(runner.scene.names, runner.cast(args), runner.dtype)
    return Input(family=family.name, phrase=family.phrase, at=size, code=code)


def _breakage(pairing: Pairing, which: int, survey: Survey, what: What) -> Breakage | None:
    """The smallest input at which the function is not finite where the truth is; None where there is none."""
    judged = pairing.judged[which]
    broken = _broken(pairing, judged, survey, what)
    if broken is None:
        return None
    family, size = broken
    shrunk, args = shrink.smallest(
        judged, family.at(size), lambda smaller, trial: smaller.is_broken(trial, what), pairing.judged_for(which)
    )
    distance = shrunk.distance(args, what)
    assert distance is not None
    return Breakage(
        what=what,
        got=distance.got,
        truth=distance.truth,
        input=_input(shrunk, family, size, args),
        report=first_divergence.origin(judged.runner.name, judged.runner.function, _on_device(shrunk, args), what),
    )


def _broken(pairing: Pairing, judged: Judged, survey: Survey, what: What) -> tuple[Family, float] | None:
    """The family and the size at which the function breaks: of a lasting threshold, else of a point, else of any threshold."""
    by_name = {family.name: family for family in pairing.families}
    faults = [threshold for threshold in survey.thresholds if threshold.fault and threshold.what == what]
    steady = [threshold for threshold in faults if threshold.lasting and threshold.finite_to is not None]
    if not steady:
        for family in pairing.families:
            if family.is_point and judged.is_broken(family.at(1.0), what):
                return family, 1.0
    return next(((by_name[threshold.family], threshold.broken_from) for threshold in steady or faults), None)


def _inaccuracy(pairing: Pairing, which: int, what: What, worst: Measurement, max_ulp: float) -> tuple[Parting | None, Worst]:
    """The equation that loses the most, and the worst input shrunk to the smallest that still loses a quarter as much."""
    judged = pairing.judged[which]
    enough = max(max_ulp, worst.distance.ulps / 4)

    def shows(smaller: Judged, trial: Args) -> bool:
        distance = smaller.distance(trial, what)
        return distance is not None and bool(np.isfinite(distance.ulps)) and distance.ulps > enough

    shrunk, args = shrink.smallest(judged, worst.args, shows, pairing.judged_for(which))
    distance = shrunk.distance(args, what)
    assert distance is not None
    shrunk_worst = Worst(
        what=what,
        ulps=distance.ulps,
        got=distance.got,
        truth=distance.truth,
        input=_input(shrunk, worst.family, worst.size, args),
    )
    if not judged.oracle.exact.is_exact:
        return None, shrunk_worst
    return first_divergence.inaccurate(judged.runner.function, _on_device(shrunk, args), shrunk.runner.dtype, what), shrunk_worst


def _on_device(judged: Judged, args: Args) -> list[jax.Array]:
    return [jnp.asarray(arg) for arg in judged.runner.cast(args)]
