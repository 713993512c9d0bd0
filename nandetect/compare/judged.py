"""One function as it is judged in one dtype: its runner computes, its oracle knows the truth, its gauge measures the distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nandetect.compare.oracle import Oracle
from nandetect.compare.ordinary import Args
from nandetect.compare.results import What
from nandetect.compare.runner import Runner
from nandetect.compare.ulps import Distance, Gauge

WHATS: tuple[What, What] = ("value", "gradient")


class Distances(NamedTuple):
    """How far from the truth the value and the gradient are at one input."""

    value: Distance
    gradient: Distance

    def of(self, what: What) -> Distance:
        return self.value if what == "value" else self.gradient


@dataclass(frozen=True, slots=True)
class Judged:
    """A function with its runner, oracle and gauge. Inputs are given in float64, and cast to the dtype here."""

    runner: Runner
    oracle: Oracle
    gauge: Gauge

    def distances(self, inputs: Sequence[Args], conditioned: bool = True) -> list[Distances | None]:
        """How far value and gradient are from the truth at each input; None for an input that the dtype cannot hold."""
        outputs = self.runner(inputs)
        distances: list[Distances | None] = []
        for row, args in enumerate(inputs):
            if not outputs.usable[row]:
                distances.append(None)
                continue
            cast = self.runner.cast(args)
            value = self.gauge.value(cast, outputs.values[row], conditioned)
            distances.append(Distances(value, self.gauge.gradient(cast, outputs.gradients[row], conditioned)))
        return distances

    def distance(self, args: Args, what: What) -> Distance | None:
        """How far the value or the gradient is from the truth at one input; None where the dtype cannot hold it."""
        (distances,) = self.distances([args])
        return None if distances is None else distances.of(what)

    def is_broken(self, args: Args, what: What) -> bool:
        """Whether the value or the gradient is not finite at this input, and the truth is."""
        distance = self.distance(args, what)
        return distance is not None and distance.faulty
