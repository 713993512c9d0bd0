"""One entrant with one seed: its training, its own clock, and what was read on the way. Nothing is shared with another entrant's lane."""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from nandetect.data import Part
from nandetect.guarding import finite
from nandetect.train.prepare import Ready, batches
from nandetect.types import Pytree

# The inputs and the targets of a step.
Batch = tuple[np.ndarray, np.ndarray]

# Factor from one look at the held-out samples to the next, for which parameters are kept: at steps 1, 2, 3, 4, 6, 9 ...
_LOOKS = 1.4
# Steps before the clock starts; the quickest of them says how many fit into the first slice.
_WARM = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """The step that first gave a non-finite value, counted from 0, and what it was given."""

    step: int
    arguments: tuple[Pytree, ...]


@dataclass(slots=True)
class Lane:
    """`advance` runs one slice. `turns` are the steps and the seconds of each; `wrong`, `losses` of each step's batch, before its update.

    `looks` are the held-out accuracy after some of the steps. A lane with a `fault` stands still; its parameters are not finite.
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
        """Run the step before the clock starts; the seconds that the first call took, which compiles where nothing has yet.

        What it returns is let go: the parameters stay as they were drawn.
        """
        inputs, targets = next(batches(self.ready, self.seed))
        taken = []
        for _ in range(1 + _WARM):
            began = time.perf_counter()
            jax.block_until_ready(self.ready.step(self.params, self.state, inputs, targets))
            taken.append(time.perf_counter() - began)
        self.cost = min(taken[1:])
        self.score(self.params, self.shown)
        return taken[0]

    def advance(self, slice_seconds: float) -> None:
        """As many steps as fit into a slice, at least one. The clock runs until the last one's metrics are read, and not while we look."""
        if self.fault:
            return
        given = list(itertools.islice(self._batches, max(1, round(slice_seconds / self.cost))))
        ran = self._ran(given)
        fault = None
        if not np.isfinite(ran.losses).all() or not _is_sound((ran.params, ran.state)):
            fault = self._first_bad(given)
        # The steps of a slice before a fault count, at their share of the time.
        count = len(given)
        sound = count if fault is None else fault.step - self.done
        looks = [(step, self.score(params, self.shown)) for step, params in ran.kept if step <= self.done + sound]
        # `done` is how many losses there are: an interrupt amid these lines leaves nothing that is read by half.
        self.params, self.state, self.cost, self._next_look = ran.params, ran.state, ran.seconds / count, ran.next_look
        if sound:
            self.turns.append((sound, ran.seconds * sound / count))
        self.looks += looks
        self.wrong.extend(self.ready.batch_size - right for right in ran.correct[:sound])
        self.losses.extend(ran.losses[:sound])
        self.fault = fault

    def _ran(self, given: Sequence[Batch]) -> _Slice:
        """The steps on these batches, timed until everything is computed; the lane itself stays as it is."""
        params, state = self.params, self.state
        metrics: list[dict[str, jax.Array]] = []
        kept: list[tuple[int, Pytree]] = []
        step, done, next_look = self.ready.step, self.done, self._next_look
        began = time.perf_counter()
        for inputs, targets in given:
            params, state, measured = step(params, state, inputs, targets)
            metrics.append(measured)
            done += 1
            if done == next_look:
                kept.append((done, params))
                next_look = max(done + 1, int(done * _LOOKS))
        losses = [float(np.asarray(measured["loss"])) for measured in metrics]
        correct = [int(np.asarray(measured["correct"])) for measured in metrics]
        # The steps that are still under way belong to this slice.
        jax.block_until_ready((params, state))
        return _Slice(params, state, losses, correct, kept, next_look, time.perf_counter() - began)

    def _first_bad(self, given: Sequence[Batch]) -> Fault:
        """The slice once more, a step at a time, from where the lane still stands."""
        params, state = self.params, self.state
        for number, (inputs, targets) in enumerate(given):
            stepped = self.ready.step(params, state, inputs, targets)
            if not _is_sound(stepped):
                return Fault(self.done + number, (params, state, inputs, targets))
            params, state = stepped.params, stepped.state
        # Where the same program on the same numbers was sound this time, the last step is the nearest that can be named.
        return Fault(self.done + len(given) - 1, (params, state, *given[-1]))


class _Slice(NamedTuple):
    """What a slice came to: its last parameters and state, what each step measured, the parameters kept for a look, and the time."""

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
