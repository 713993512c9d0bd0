"""The race itself: prepare the entrants, let them take turns until the time is up, judge."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from nandetect import data, findings
from nandetect.data import Data, Part
from nandetect.data.dataset import stratified
from nandetect.fixing.locate import locate
from nandetect.race.duels import champion, duels
from nandetect.race.lane import Lane
from nandetect.race.result import RaceResult
from nandetect.race.settings import Entrant, RaceSettings, entrants
from nandetect.race.summary import limit, standings
from nandetect.records import Finding
from nandetect.train.loop import configured
from nandetect.train.prepare import prepare
from nandetect.train.step import scorer

Notice = Callable[[str], None]

# Seconds of a slice: long compared with reading a clock and a few numbers, short compared with what disturbs a machine.
_SLICE = 0.005
# Slices of a short race are shorter, so that every entrant has about `_LEAST_ROUNDS` of them, but not below `_SHORTEST_SLICE`.
_SHORTEST_SLICE = 0.001
_LEAST_ROUNDS = 20
# Held-out samples that are scored during the race; at the end all are.
_MOST_SAMPLES = 1000


def run(settings: RaceSettings, notice: Notice = lambda line: None) -> RaceResult:
    """Race the entrants, telling `notice` how the race stands. An interrupt ends it, and what was raced so far is judged.

    Raises `UsageError` for entrants or data that cannot be used, before anything is raced.
    """
    with configured(jax_enable_x64=False, jax_debug_nans=False, jax_debug_infs=False):
        racing = entrants(settings)
        loaded = data.load(settings.data)
        # Lanes of all entrants are made first: whatever can be refused is refused before anything compiles.
        lanes = [_lanes(entrant, settings.seeds, loaded) for entrant in racing]
        compiling = []
        for entrant, seed_lanes in zip(racing, lanes, strict=True):
            notice(f"compiling {entrant.name}")
            first, *others = seed_lanes
            # The first seed compiles the step; the others find it compiled.
            compiling.append(first.warm())
            for lane in others:
                lane.warm()
        stopped, rounds, seconds = _race(lanes, settings.time_limit, notice)
        ranked = standings(racing, lanes, compiling, settings.target)
        judged = duels(ranked, limit(lanes))
        raced_data = lanes[0][0].ready.data
        return RaceResult(
            settings=settings,
            data=loaded.name,
            train_samples=len(raced_data.train),
            held_out_samples=len(raced_data.held_out),
            stopped=stopped,
            rounds=rounds,
            seconds=seconds,
            standings=tuple(ranked),
            duels=judged,
            winner=champion(ranked, judged),
            findings=tuple(_faults(racing, lanes)),
        )


def _lanes(entrant: Entrant, seeds: int, loaded: Data) -> list[Lane]:
    """A lane for each seed. They share this entrant's compiled step, which no other entrant does, even of the same spelling."""
    ready = [prepare(entrant.with_seed(seed), loaded) for seed in range(seeds)]
    score = scorer(ready[0].model.apply, ready[0].dtype)
    return [Lane(dataclasses.replace(own, step=ready[0].step), seed, score, _sampled(own.data.held_out)) for seed, own in enumerate(ready)]


def _sampled(part: Part) -> Part:
    """The samples that are scored during the race, in the proportions of the classes."""
    if len(part) <= _MOST_SAMPLES:
        return part
    return part.take(stratified(part.labels, _MOST_SAMPLES, np.random.default_rng(0)))


def _race(lanes: Sequence[Sequence[Lane]], time_limit: float, notice: Notice) -> tuple[Literal["finished", "interrupted"], int, float]:
    """Whole rounds until the time is up: in each, every seed runs a slice of every entrant, in an order that changes."""
    seeds, count = len(lanes[0]), len(lanes)
    slice_seconds = min(_SLICE, max(_SHORTEST_SLICE, time_limit / (seeds * count * _LEAST_ROUNDS)))
    rounds = 0
    was_enabled = gc.isenabled()
    # Garbage collection would fall on the clock of whichever entrant happens to run.
    gc.disable()
    began = time.perf_counter()
    try:
        while time.perf_counter() - began < time_limit and not all(lane.fault for seed_lanes in lanes for lane in seed_lanes):
            for seed in range(seeds):
                for entrant in _order(count, rounds + seed):
                    lanes[entrant][seed].advance(slice_seconds)
            rounds += 1
            notice(f"racing: {min(time.perf_counter() - began, time_limit):.0f} s of {time_limit:g} s")
            gc.collect(0)
    except KeyboardInterrupt:
        return "interrupted", rounds, time.perf_counter() - began
    finally:
        if was_enabled:
            gc.enable()
    return "finished", rounds, time.perf_counter() - began


def _order(count: int, turn: int) -> list[int]:
    """The order of the entrants in a turn: each turn starts with the next entrant, and after one turn each they go backwards.

    So none always follows the same other.
    """
    order = [(turn + position) % count for position in range(count)]
    return order if turn // count % 2 == 0 else order[::-1]


def _faults(racing: Sequence[Entrant], lanes: Sequence[Sequence[Lane]]) -> list[Finding]:
    """A finding for each entrant that turned non-finite: where its first such seed did."""
    faults: list[Finding] = []
    for entrant, seed_lanes in zip(racing, lanes, strict=True):
        failed = [lane for lane in seed_lanes if lane.fault]
        if not failed:
            continue
        fault = failed[0].fault
        assert fault is not None
        report = locate(failed[0].ready.step, *fault.arguments)
        if report is None:
            finding = findings.finding(
                "non-finite",
                "error",
                f"a result was not finite at step {fault.step}; run again, the same step was sound",
                step=fault.step,
            )
        else:
            finding = findings.non_finite(dataclasses.replace(report, step=fault.step, label=f"{entrant.name} · seed {failed[0].seed}"))
        often = f"in {len(failed)} of {len(seed_lanes)} seeds"
        faults.append(dataclasses.replace(finding, message=f"{entrant.name}: {finding.message}, {often}"))
    return faults
