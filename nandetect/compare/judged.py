"""One function beside the truth in one dtype: whatever its runner, its oracle and its gauge say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nandetect.compare.families import Args
from nandetect.compare.oracle import Oracle
from nandetect.compare.results import What
from nandetect.compare.runner import Runner
from nandetect.compare.ulps import Distance, Gauge

WHATS: tuple[What, What] = ("value", "gradient")


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks all three about inputs that are not cast yet."""

    runner: Runner
    oracle: Oracle
    gauge: Gauge

    def distances(self, inputs: Sequence[Args], conditioned: bool = True) -> list[tuple[Distance, Distance] | None]:
        """How far value and gradient are from the truth at each input; None for one that the dtype cannot hold."""
        results = self.runner(inputs)
        found: list[tuple[Distance, Distance] | None] = []
        for at, args in enumerate(inputs):
            if not results.usable[at]:
                found.append(None)
                continue
            cast = self.runner.cast(args)
            value = self.gauge.value(cast, results.values[at], conditioned)
            found.append((value, self.gauge.gradient(cast, results.gradients[at], conditioned)))
        return found

    def distance(self, args: Args, what: What) -> Distance | None:
        """How far the value or the gradient is from the truth."""
        (found,) = self.distances([args])
        return None if found is None else found[WHATS.index(what)]

    def is_broken(self, args: Args, what: What) -> bool:
        """Whether it is not finite there, and the truth is."""
        found = self.distance(args, what)
        return found is not None and found.faulty

    def bad(self, inputs: Sequence[Args], what: What) -> np.ndarray:
        """Where it is not finite, whatever the truth, bool[n]."""
        return self.runner(inputs).bad(what)
