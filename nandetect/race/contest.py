"""The race itself: prepare everyone, take turns until the time is up, judge."""

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
from nandetect.locating.locate import locate
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

# Seconds of a turn: long beside reading a clock and a few numbers, short beside what disturbs a machine.
_SLICE = 0.005
# In a short race turns are shorter, so that everyone has about this many of them.
_SHORTEST_SLICE = 0.001
_LEAST_ROUNDS = 20
# Held-out samples that are looked at during the race; at the end all of them are.
_SHOWN = 1000


def run(settings: RaceSettings, notice: Notice = lambda line: None) -> RaceResult:
    """Race the entrants, telling `notice` how it stands. An interrupt ends the race, and what was raced so far is judged.

    Raises `UsageError` for entrants or data that cannot be used, before anything is raced.
    """
    with configured(jax_enable_x64=False, jax_debug_nans=False, jax_debug_infs=False):
        racing = entrants(settings)
        loaded = data.load(settings.data)
        # Whatever can be refused is refused before the first entrant compiles.
        lanes = [_lanes(entrant, settings.seeds, loaded) for entrant in racing]
        compiling = []
        for entrant, own in zip(racing, lanes, strict=True):
            notice(f"compiling {entrant.name}")
            first, *others = own
            # The first seed compiles the step, the later ones find it compiled.
            compiling.append(first.warm())
            for lane in others:
                lane.warm()
        stopped, rounds, seconds = _race(lanes, settings.time_limit, notice)
        ranked = standings(racing, lanes, compiling, settings.target)
        fought = duels(ranked, limit(lanes))
        sampled = lanes[0][0].ready.data
        return RaceResult(
            settings=settings,
            data=loaded.name,
            train_samples=len(sampled.train),
            held_out_samples=len(sampled.held_out),
            stopped=stopped,
            rounds=rounds,
            seconds=seconds,
            standings=tuple(ranked),
            duels=fought,
            winner=champion(ranked, fought),
            findings=tuple(_faults(racing, lanes)),
        )


def _lanes(entrant: Entrant, seeds: int, loaded: Data) -> list[Lane]:
    """A lane for each seed. All share the step that is compiled for this entrant; no other entrant does, even of the same spelling."""
    ready = [prepare(entrant.with_seed(seed), loaded) for seed in range(seeds)]
    score = scorer(ready[0].model.apply, ready[0].dtype)
    return [Lane(dataclasses.replace(own, step=ready[0].step), seed, score, _some(own.data.held_out)) for seed, own in enumerate(ready)]


def _some(part: Part) -> Part:
    """The samples that are looked at during the race, of every class alike."""
    if len(part) <= _SHOWN:
        return part
    return part.take(stratified(part.labels, _SHOWN, np.random.default_rng(0)))


def _race(lanes: Sequence[Sequence[Lane]], time_limit: float, notice: Notice) -> tuple[Literal["finished", "interrupted"], int, float]:
    """Whole rounds until the time is up: in each, every seed runs a slice of every entrant, in an order that changes."""
    seeds, count = len(lanes[0]), len(lanes)
    slice_seconds = min(_SLICE, max(_SHORTEST_SLICE, time_limit / (seeds * count * _LEAST_ROUNDS)))
    rounds = 0
    collects = gc.isenabled()
    # Garbage collection would fall on the clock of whoever happens to run.
    gc.disable()
    began = time.perf_counter()
    try:
        while time.perf_counter() - began < time_limit and not all(lane.fault for own in lanes for lane in own):
            for seed in range(seeds):
                for entrant in _order(count, rounds + seed):
                    lanes[entrant][seed].advance(slice_seconds)
            rounds += 1
            notice(f"racing: {min(time.perf_counter() - began, time_limit):.0f} s of {time_limit:g} s")
            gc.collect(0)
    except KeyboardInterrupt:
        return "interrupted", rounds, time.perf_counter() - began
    finally:
        if collects:
            gc.enable()
    return "finished", rounds, time.perf_counter() - began


def _order(count: int, turn: int) -> list[int]:
    """Every entrant once. Each turn starts with the next, and every other time round goes backwards: nobody always follows the same one."""
    order = [(turn + place) % count for place in range(count)]
    return order if turn // count % 2 == 0 else order[::-1]


def _faults(racing: Sequence[Entrant], lanes: Sequence[Sequence[Lane]]) -> list[Finding]:
    """For each entrant that turned non-finite, where the first such seed did."""
    faults: list[Finding] = []
    for entrant, own in zip(racing, lanes, strict=True):
        failed = [lane for lane in own if lane.fault]
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
        often = f"in {len(failed)} of {len(own)} seeds"
        faults.append(dataclasses.replace(finding, message=f"{entrant.name}: {finding.message}, {often}"))
    return faults
