"""The lane of one entrant with one seed: its training, its own clock, and what was read on the way. Entrants share nothing."""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from nandetect.annotations import Pytree
from nandetect.data import Part
from nandetect.guarding import finite
from nandetect.train.prepare import Ready, batches

# The inputs and the targets of a step.
Batch = tuple[np.ndarray, np.ndarray]

# Factor between the steps whose parameters are kept, to be scored on the held-out samples: steps 1, 2, 3, 4, 6, 9 ...
_LOOKS = 1.4
# Steps before the clock starts, after the one that compiles; the quickest tells how many fit into the first slice.
_WARM = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """The step that first gave a non-finite value, counted from 0, and its arguments."""

    step: int
    arguments: tuple[Pytree, ...]


@dataclass(slots=True)
class Lane:
    """A training that `advance` runs slice by slice.

    `turns` are the steps and the seconds of each slice; `wrong` and `losses` those of each step's batch, before its update. `looks` are the
    held-out accuracy after some of the steps, on the samples `shown`. A lane with a `fault` stands still; its parameters are not finite.
    """

    ready: Ready
    seed: int
    score: Callable[[Pytree, Part], float]
    shown: Part
    cost: float = 0.0
    fault: Fault | None = None
    turns: list[tuple[int, float]] = field(default_factory=list)
    wrong: array[int] = field(default_factory=lambda: array("q"))
    losses: array[float] = field(default_factory=lambda: array("d"))
    looks: list[tuple[int, float]] = field(default_factory=list)
    params: Pytree = None
    state: Pytree = None
    _batches: Iterator[Batch] = field(init=False)
    _next_look: int = 1

    def __post_init__(self) -> None:
        self.params, self.state = self.ready.params, self.ready.state
        self._batches = batches(self.ready, self.seed)

    @property
    def done(self) -> int:
        """Sound steps so far."""
        return len(self.losses)

    def warm(self) -> float:
        """Run the step a few times before the clock starts, and return the seconds of the first call, which compiles.

        The results are dropped: the parameters stay as they were drawn. Only an entrant's first lane compiles; the others share its step.
        """
        inputs, targets = next(batches(self.ready, self.seed))
        seconds = []
        for _ in range(1 + _WARM):
            began = time.perf_counter()
            jax.block_until_ready(self.ready.step(self.params, self.state, inputs, targets))
            seconds.append(time.perf_counter() - began)
        self.cost = min(seconds[1:])
        self.score(self.params, self.shown)
        return seconds[0]

    def advance(self, slice_seconds: float) -> None:
        """Run as many steps as fit into a slice, at least one. The clock runs until the last is computed, and not while they are scored."""
        if self.fault:
            return
        slice_batches = list(itertools.islice(self._batches, max(1, round(slice_seconds / self.cost))))
        outcome = self._ran(slice_batches)
        fault = None
        if not np.isfinite(outcome.losses).all() or not _is_sound((outcome.params, outcome.state)):
            fault = self._first_bad(slice_batches)
        # Steps of the slice before a fault count, at their share of its time.
        count = len(slice_batches)
        sound = count if fault is None else fault.step - self.done
        looks = [(step, self.score(params, self.shown)) for step, params in outcome.kept if step <= self.done + sound]
        # `losses` grow last, as `done` is their number: an interrupt amid these lines leaves no step half recorded.
        self.params, self.state, self.cost, self._next_look = outcome.params, outcome.state, outcome.seconds / count, outcome.next_look
        if sound:
            self.turns.append((sound, outcome.seconds * sound / count))
        self.looks += looks
        self.wrong.extend(self.ready.batch_size - right for right in outcome.correct[:sound])
        self.losses.extend(outcome.losses[:sound])
        self.fault = fault

    def _ran(self, slice_batches: Sequence[Batch]) -> _Slice:
        """The steps on these batches, timed until everything is computed; the lane itself stays as it is."""
        params, state = self.params, self.state
        metrics: list[dict[str, jax.Array]] = []
        snapshots: list[tuple[int, Pytree]] = []
        step, done, next_look = self.ready.step, self.done, self._next_look
        began = time.perf_counter()
        for inputs, targets in slice_batches:
            params, state, measured = step(params, state, inputs, targets)
            metrics.append(measured)
            done += 1
            if done == next_look:
                snapshots.append((done, params))
                next_look = max(done + 1, int(done * _LOOKS))
        losses = [float(np.asarray(measured["loss"])) for measured in metrics]
        correct = [int(np.asarray(measured["correct"])) for measured in metrics]
        # Steps that are still under way belong to this slice's time.
        jax.block_until_ready((params, state))
        return _Slice(params, state, losses, correct, snapshots, next_look, time.perf_counter() - began)

    def _first_bad(self, slice_batches: Sequence[Batch]) -> Fault:
        """The first fault of a slice, found by running it again a step at a time from where the lane still stands."""
        params, state = self.params, self.state
        for number, (inputs, targets) in enumerate(slice_batches):
            stepped = self.ready.step(params, state, inputs, targets)
            if not _is_sound(stepped):
                return Fault(self.done + number, (params, state, inputs, targets))
            params, state = stepped.params, stepped.state
        # The last step is the nearest that can be named where the same program on the same numbers was sound this time.
        return Fault(self.done + len(slice_batches) - 1, (params, state, *slice_batches[-1]))


class _Slice(NamedTuple):
    """The outcome of a slice: its last parameters and state, what each step measured, the parameters kept for scoring, and its seconds."""

    params: Pytree
    state: Pytree
    losses: list[float]
    correct: list[int]
    kept: list[tuple[int, Pytree]]
    next_look: int
    seconds: float


def _is_sound(tree: Pytree) -> bool:
    """Whether nothing in the tree is NaN or infinite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if finite.can_be_bad(leaf)]
    return not any(finite.states(leaves))
