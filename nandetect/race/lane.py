"""One entrant with one seed: its training, its own clock, and what was read on the way. Nothing is shared with another entrant's lane."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from nandetect import finite
from nandetect.data import Part
from nandetect.train.prepare import Ready, batches

# Parameters are kept for a look at the held-out samples at steps 1, 2, 3, 4, 6, 9 ...: every one is this much later than the one before.
_LOOKS = 1.4
# Steps before the clock starts, of which the quickest says how many fit into the first slice.
_WARM = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """The step that first gave a non-finite value, counted from 0, and what it was given."""

    step: int
    arguments: tuple[Any, ...]


@dataclass(slots=True)
class Lane:
    """`advance` runs one slice. `steps`, `seconds` are of each slice; `wrong`, `losses` of each step's batch, before its update."""

    ready: Ready
    seed: int
    score: Callable[[Any, Part], float]
    shown: Part
    cost: float = 0.0
    done: int = 0
    fault: Fault | None = None
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    looks: list[tuple[int, float]] = field(default_factory=list)
    params: Any = None
    state: Any = None
    _batches: Iterator[tuple[Any, Any]] = field(init=False)
    _next_look: int = 1

    def __post_init__(self) -> None:
        self.params, self.state = self.ready.params, self.ready.state
        self._batches = batches(self.ready, self.seed)

    def warm(self) -> float:
        """Run the step on a copy, before the clock starts; the seconds that the first call took, which compiles where nothing has yet."""
        inputs, targets = next(batches(self.ready, self.seed))
        params, state = jax.tree.map(lambda leaf: leaf.copy(), (self.params, self.state))
        taken = []
        for _ in range(1 + _WARM):
            began = time.perf_counter()
            jax.block_until_ready(self.ready.step(params, state, inputs, targets))
            taken.append(time.perf_counter() - began)
        self.cost = min(taken[1:])
        self.score(self.params, self.shown)
        return taken[0]

    def advance(self, slice_seconds: float) -> None:
        """As many steps as fit into a slice, at least one. The clock runs until the last one's metrics are read, and not while we look."""
        if self.fault:
            return
        count = max(1, round(slice_seconds / self.cost))
        given = list(itertools.islice(self._batches, count))
        start = params, state = self.params, self.state
        metrics: list[dict[str, Any]] = []
        kept: list[tuple[int, Any]] = []
        step, done, next_look = self.ready.step, self.done, self._next_look
        began = time.perf_counter()
        for inputs, targets in given:
            params, state, measured = step(params, state, inputs, targets)
            metrics.append(measured)
            done += 1
            if done == next_look:
                kept.append((done, params))
                next_look = max(done + 1, int(done * _LOOKS))
        losses = [float(np.asarray(one["loss"])) for one in metrics]
        correct = [int(np.asarray(one["correct"])) for one in metrics]
        # What is still under way belongs to this slice.
        jax.block_until_ready((params, state))
        taken = time.perf_counter() - began

        if not np.isfinite(losses).all() or not _sound((params, state)):
            self.fault = self._first_bad(start, given)
            return
        # From here on nothing waits: an interrupt comes before all of this or after.
        self.params, self.state, self.done, self._next_look = params, state, done, next_look
        self.cost = taken / count
        self.steps.append(count)
        self.seconds.append(taken)
        self.losses += losses
        self.wrong += [self.ready.batch_size - right for right in correct]
        self.looks += [(at, self.score(seen, self.shown)) for at, seen in kept]

    def _first_bad(self, start: tuple[Any, Any], given: list[tuple[Any, Any]]) -> Fault:
        """The slice once more, a step at a time."""
        params, state = start
        for at, (inputs, targets) in enumerate(given):
            stepped = self.ready.step(params, state, inputs, targets)
            if not _sound(stepped):
                return Fault(self.done + at, (params, state, inputs, targets))
            params, state = stepped.params, stepped.state
        # The same program on the same numbers was sound this time: the last step is the nearest that can be named.
        return Fault(self.done + len(given) - 1, (params, state, *given[-1]))


def _sound(tree: Any) -> bool:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if finite.can_be_bad(leaf)]
    return not any(finite.states(leaves))
