"""The standing of each entrant, from what was read of its lanes."""

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

# Loss below which it is printed as 0.000.
SETTLED = 0.0005
_POINTS = 120


@dataclass(frozen=True, slots=True)
class Track:
    """A lane as arrays: the own time at the end of every step; accuracy and mean loss of every whole epoch, and its last step's number."""

    times: np.ndarray
    ends: np.ndarray
    accuracy: np.ndarray
    loss: np.ndarray


def track(lane: Lane) -> Track:
    """What was read of the lane, by epoch."""
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
    """Every entrant's seeds, and its curve; all curves have one axis of time, from the first reading to the last."""
    tracks = [[track(lane) for lane in own] for own in lanes]
    ends = [read.times[read.ends - 1] for own in tracks for read in own if len(read.ends)]
    grid = np.geomspace(min(end[0] for end in ends), max(end[-1] for end in ends), _POINTS) if ends else np.zeros(0)
    return [
        Standing(
            name=entrant.name,
            training=_training(entrant),
            parameters=sum(leaf.size for leaf in jax.tree.leaves(own[0].ready.params)),
            compile_seconds=seconds,
            runs=tuple(_seed_run(lane, seen, target) for lane, seen in zip(own, read, strict=True)),
            curve=_curve(own, read, grid),
        )
        for entrant, own, read, seconds in zip(entrants, lanes, tracks, compiling, strict=True)
    ]


def limit(lanes: Sequence[Sequence[Lane]]) -> float:
    """The longest time on any lane's clock: what did not happen within it is taken to have happened at its end."""
    return max((float(clock.times(lane.turns)[-1]) for own in lanes for lane in own if lane.turns), default=1.0)


def _training(entrant: Entrant) -> dict[str, object]:
    settings = entrant.with_seed(0)
    names = ("model", "loss", "init", "optimizer", "lr", "hidden", "batch_size", "inputs", "dtype", "jit")
    return {name: getattr(settings, name) for name in names}


def _seed_run(lane: Lane, read: Track, target: float) -> SeedRun:
    seconds = sum(taken for _, taken in lane.turns)
    sound = lane.fault is None
    enough = (read.accuracy >= target - 1e-9) & sound
    data = lane.ready.data
    return SeedRun(
        seed=lane.seed,
        steps=lane.done,
        epochs=lane.done / lane.ready.steps_per_epoch,
        seconds=seconds,
        steps_per_second=lane.done / seconds if seconds > 0 else None,
        loss=float(read.loss[-1]) if len(read.loss) else None,
        accuracy=lane.score(lane.params, data.train) if sound else 0.0,
        held_out_accuracy=lane.score(lane.params, data.held_out) if sound else 0.0,
        target=_first(enough, read),
        settled=_first(enough & (read.loss < SETTLED), read),
        fault_step=None if lane.fault is None else lane.fault.step,
    )


def _first(true: np.ndarray, read: Track) -> Reached | None:
    """The first epoch of which something is true."""
    if not true.any():
        return None
    epoch = int(np.argmax(true))
    steps = int(read.ends[epoch])
    return Reached(epoch=epoch + 1, steps=steps, seconds=float(read.times[steps - 1]))


def _curve(lanes: Sequence[Lane], tracks: Sequence[Track], grid: np.ndarray) -> AccuracyCurve:
    training = [_on_grid(grid, read.times[read.ends - 1], read.accuracy, lane, read) for lane, read in zip(lanes, tracks, strict=True)]
    held_out = [
        _on_grid(grid, read.times[[step - 1 for step, _ in lane.looks]], np.array([share for _, share in lane.looks]), lane, read)
        for lane, read in zip(lanes, tracks, strict=True)
    ]
    return AccuracyCurve(seconds=tuple(grid.tolist()), training=_over_seeds(training), held_out=_over_seeds(held_out))


def _on_grid(grid: np.ndarray, times: np.ndarray, values: np.ndarray, lane: Lane, read: Track) -> np.ndarray:
    """The latest value at each time of the grid, NaN before the first; 0 from the end of a lane that turned non-finite."""
    if lane.fault:
        times, values = np.append(times, read.times[-1] if len(read.times) else 0.0), np.append(values, 0.0)
    latest = np.searchsorted(times, grid * (1 + 1e-9), side="right") - 1
    return np.where(latest >= 0, np.append(values, np.nan)[latest], np.nan)


def _over_seeds(values: Sequence[np.ndarray]) -> tuple[OverSeeds | None, ...]:
    columns = np.stack(values, axis=1)
    return tuple(OverSeeds.of(column[np.isfinite(column)].tolist()) if np.isfinite(column).any() else None for column in columns)
