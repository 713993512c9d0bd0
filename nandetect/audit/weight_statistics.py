"""What the weights of one kernel show: their moments, and the form of their distribution as far as their number tells it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np

Form = Literal["normal", "uniform", "truncated"]
# The largest number of weights looked at: enough to tell a deviation of a thousandth.
_ENOUGH = 1 << 22
# The fewest weights that a test of a distribution or a scale says anything of.
FEWEST = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Ideal:
    """A distribution of second moment 1: its fourth moment, the variance of a sample's fourth moment times the sample's size, its end, and
    the density there."""

    kurtosis: float
    kurtosis_variance: float
    end: float = math.inf
    edge: float = 0.0


# The second moment of a normal cut at two deviations (as JAX, flax and haiku cut theirs), as a multiple of the uncut one's.
CUT = 0.7737413
IDEALS: dict[Form, Ideal] = {
    "normal": Ideal(kurtosis=3.0, kurtosis_variance=24.0),
    "uniform": Ideal(kurtosis=1.8, kurtosis_variance=1.317, end=math.sqrt(3.0), edge=1 / math.sqrt(3.0)),
    "truncated": Ideal(kurtosis=2.3656, kurtosis_variance=3.849, end=2 / math.sqrt(CUT), edge=0.0995),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStatistics:
    """What `count` weights show. `second` is mean(w^2), the mean not subtracted; `peak` is the largest |w|. `zeros` and `tiny` are shares,
    `tiny` that below the smallest normal number of the dtype; `grain` is the distance from 1 to the next number of the dtype. `forms` are
    the distributions that the weights could have been drawn from; none where it is none of those known here."""

    count: int
    mean: float
    second: float
    kurtosis: float
    peak: float
    zeros: float
    tiny: float
    finite: bool
    grain: float
    forms: frozenset[Form]

    @property
    def deviation(self) -> float:
        """The root of the second moment: what an initialiser calls the standard deviation."""
        return math.sqrt(self.second)

    @property
    def is_centred(self) -> bool:
        """Whether the mean is within 5 standard errors of 0, or small beside the weights."""
        return abs(self.mean) <= max(5 * self.deviation / math.sqrt(self.count), 0.2 * self.deviation)

    @property
    def sharp(self) -> float:
        """The second moment; where the distribution ends, as its largest weight tells it: far more exact than the mean of squares."""
        if len(self.forms) != 1:
            return self.second
        ideal = IDEALS[next(iter(self.forms))]
        if math.isinf(ideal.end):
            return self.second
        short = 1 / (2 * self.count * ideal.edge)
        return (self.peak / (ideal.end * (1 - min(short, 0.5)))) ** 2

    @property
    def resolution(self) -> float:
        """The standard error of the logarithm of `sharp`; 0 where the distribution has no end and `sharp` is the second moment."""
        if len(self.forms) != 1:
            return 0.0
        ideal = IDEALS[next(iter(self.forms))]
        return 0.0 if math.isinf(ideal.end) else max(1 / (self.count * ideal.edge), self.grain)

    def deviates(self, variance: float) -> float:
        """How many standard errors the second moment lies from `variance`.

        The logarithm's error is sqrt((kurtosis - 1) / n); below, where the logarithm of a sum of squares has a long tail, Wilson and
        Hilferty's cube root (1931) is taken in its place.
        """
        error = math.sqrt(max(self.kurtosis - 1, 0.5) / self.count)
        ratio = self.second / variance
        if ratio <= 0:
            return -math.inf
        if ratio >= 1:
            return math.log(ratio) / error
        return (ratio ** (1 / 3) - (1 - error**2 / 9)) / (error / 3)


def weight_statistics(array: np.ndarray) -> WeightStatistics:
    """What the weights of an array show; a large array is sampled evenly."""
    flat = array.reshape(-1)
    step = max(flat.size // _ENOUGH, 1)
    # An odd step does not keep to one column.
    taken = flat[:: step + 1 - step % 2]
    smallest_normal = float(jnp.finfo(taken.dtype).smallest_normal)
    weights = taken.astype(np.float64)
    finite = bool(np.isfinite(weights).all())
    if not finite:
        weights = weights[np.isfinite(weights)]
    squares = weights * weights
    second = float(squares.mean()) if weights.size else 0.0
    kurtosis = float((squares * squares).mean()) / second**2 if second > 0 else 0.0
    peak = float(np.abs(weights).max(initial=0.0))
    forms = _forms(weights.size, second, kurtosis, peak) if second > 0 else frozenset()
    return WeightStatistics(
        count=weights.size,
        mean=float(weights.mean()) if weights.size else 0.0,
        second=second,
        kurtosis=kurtosis,
        peak=peak,
        zeros=float((weights == 0).mean()) if weights.size else 0.0,
        tiny=float((np.abs(weights) < smallest_normal).mean()) if weights.size else 0.0,
        finite=finite,
        grain=float(jnp.finfo(taken.dtype).eps),
        forms=forms,
    )


def _forms(count: int, second: float, kurtosis: float, peak: float) -> frozenset[Form]:
    """The likeliest distribution and those at most 150 times (e^5) less likely, each if its fourth moment is within 5 standard errors."""
    if count < FEWEST:
        return frozenset()
    likelihoods: dict[Form, float] = {
        "normal": -count / 2 * (math.log(2 * math.pi * second) + 1),
        "uniform": -count * math.log(2 * peak),
        "truncated": -count * (math.log(peak / 2 * math.sqrt(2 * math.pi) * math.erf(math.sqrt(2))) + 2 * second / peak**2),
    }
    best = max(likelihoods.values())
    close: list[Form] = [form for form, likelihood in likelihoods.items() if likelihood >= best - 5]
    return frozenset(form for form in close if _has_fourth_moment(IDEALS[form], count, kurtosis))


def _has_fourth_moment(ideal: Ideal, count: int, kurtosis: float) -> bool:
    return abs(kurtosis - ideal.kurtosis) <= 5 * math.sqrt(ideal.kurtosis_variance / count)
