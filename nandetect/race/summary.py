"""The standing of each entrant, from the steps and scores of its lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from nandetect.race import clock
from nandetect.race.lane import Lane
from nandetect.race.result import AccuracyCurve, OverSeeds, SeedRun, Standing
from nandetect.race.settings import Entrant
from nandetect.train.settings import Reached

# The loss below which it is printed as 0.000.
SETTLED = 0.0005
_POINTS = 120


@dataclass(frozen=True, slots=True)
class Track:
    """A lane as arrays: the seconds on its clock at the end of every step; accuracy, mean loss and last step of every whole epoch."""

    times: np.ndarray
    ends: np.ndarray
    accuracy: np.ndarray
    loss: np.ndarray


def track(lane: Lane) -> Track:
    """The steps of a lane as a track, by epoch."""
    per_epoch = lane.ready.steps_per_epoch
    epochs = lane.done // per_epoch
    wrong = np.asarray(lane.wrong[: epochs * per_epoch], np.int64).reshape(epochs, per_epoch).sum(1)
    loss = np.asarray(lane.losses[: epochs * per_epoch], np.float64).reshape(epochs, per_epoch).mean(1)
    return Track(
        times=clock.times(lane.turns),
        ends=per_epoch * np.arange(1, epochs + 1),
        accuracy=1 - wrong / (per_epoch * lane.ready.batch_size),
        loss=loss,
    )


def standings(entrants: Sequence[Entrant], lanes: Sequence[Sequence[Lane]], compiling: Sequence[float], target: float) -> list[Standing]:
    """The seeds and the curve of every entrant. All curves have one axis of time, from the first end of an epoch to the last."""
    tracks = [[track(lane) for lane in seed_lanes] for seed_lanes in lanes]
    ends = [seed_tracks.times[seed_tracks.ends - 1] for seed_lanes in tracks for seed_tracks in seed_lanes if len(seed_tracks.ends)]
    grid = np.geomspace(min(end[0] for end in ends), max(end[-1] for end in ends), _POINTS) if ends else np.zeros(0)
    return [
        Standing(
            name=entrant.name,
            training=_training(entrant),
            parameters=sum(leaf.size for leaf in jax.tree.leaves(seed_lanes[0].ready.params)),
            compile_seconds=seconds,
            runs=tuple(_seed_run(lane, seed_track, target) for lane, seed_track in zip(seed_lanes, seed_tracks, strict=True)),
            curve=_curve(seed_lanes, seed_tracks, grid),
        )
        for entrant, seed_lanes, seed_tracks, seconds in zip(entrants, lanes, tracks, compiling, strict=True)
    ]


def limit(lanes: Sequence[Sequence[Lane]]) -> float:
    """The longest time on any lane's clock, with which a run counts that did not reach the target."""
    return max((float(clock.times(lane.turns)[-1]) for seed_lanes in lanes for lane in seed_lanes if lane.turns), default=1.0)


def _training(entrant: Entrant) -> dict[str, object]:
    settings = entrant.with_seed(0)
    names = ("model", "loss", "init", "optimizer", "lr", "hidden", "batch_size", "inputs", "dtype", "jit")
    return {name: getattr(settings, name) for name in names}


def _seed_run(lane: Lane, track: Track, target: float) -> SeedRun:
    seconds = sum(taken for _, taken in lane.turns)
    sound = lane.fault is None
    at_target = (track.accuracy >= target - 1e-9) & sound
    data = lane.ready.data
    return SeedRun(
        seed=lane.seed,
        steps=lane.done,
        epochs=lane.done / lane.ready.steps_per_epoch,
        seconds=seconds,
        steps_per_second=lane.done / seconds if seconds > 0 else None,
        loss=float(track.loss[-1]) if len(track.loss) else None,
        accuracy=lane.score(lane.params, data.train) if sound else 0.0,
        held_out_accuracy=lane.score(lane.params, data.held_out) if sound else 0.0,
        target=_first(at_target, track),
        settled=_first(at_target & (track.loss < SETTLED), track),
        fault_step=None if lane.fault is None else lane.fault.step,
    )


def _first(reached: np.ndarray, track: Track) -> Reached | None:
    """The first epoch at which the flag is set; None where there is none."""
    if not reached.any():
        return None
    epoch = int(np.argmax(reached))
    steps = int(track.ends[epoch])
    return Reached(epoch=epoch + 1, steps=steps, seconds=float(track.times[steps - 1]))


def _curve(lanes: Sequence[Lane], tracks: Sequence[Track], grid: np.ndarray) -> AccuracyCurve:
    training = [_on_grid(grid, track.times[track.ends - 1], track.accuracy, lane, track) for lane, track in zip(lanes, tracks, strict=True)]
    held_out = [
        _on_grid(grid, track.times[[step - 1 for step, _ in lane.looks]], np.array([share for _, share in lane.looks]), lane, track)
        for lane, track in zip(lanes, tracks, strict=True)
    ]
    return AccuracyCurve(seconds=tuple(grid.tolist()), training=_over_seeds(training), held_out=_over_seeds(held_out))


def _on_grid(grid: np.ndarray, times: np.ndarray, values: np.ndarray, lane: Lane, track: Track) -> np.ndarray:
    """The latest value at each time of the grid, NaN before the first; 0 from the end of a lane that turned non-finite."""
    if lane.fault:
        times, values = np.append(times, track.times[-1] if len(track.times) else 0.0), np.append(values, 0.0)
    latest = np.searchsorted(times, grid * (1 + 1e-9), side="right") - 1
    return np.where(latest >= 0, np.append(values, np.nan)[latest], np.nan)


def _over_seeds(values: Sequence[np.ndarray]) -> tuple[OverSeeds | None, ...]:
    columns = np.stack(values, axis=1)
    return tuple(OverSeeds.of(column[np.isfinite(column)].tolist()) if np.isfinite(column).any() else None for column in columns)
