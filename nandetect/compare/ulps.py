"""The distance of a result from the truth, counted in errors that a sound computation could make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flint import arb

from nandetect.compare.oracle import ExactArray, Oracle, eps
from nandetect.compare.results import What

# Raw ulps below which it does not matter whether the input's own rounding explains them.
PLAIN = 4.0
TRIALS = 4


@dataclass(frozen=True, slots=True)
class Distance:
    """The distance of the worst element, NaN where there is no truth. `faulty` is true where the element is not finite and the truth is."""

    ulps: float
    faulty: bool
    got: float
    truth: float


class Gauge:
    """Measures one function's results in one dtype. `ordinary` are inputs of about 1, from which the function's own scale is taken.

    An error of the value is counted in ulps of the largest of: the true value, 1, an ordinary value, the sum of |x df/dx|, and the same sum
    with an ordinary gradient. An error of the gradient in ulps of the largest of: its largest true element, that of an ordinary gradient.
    Either may be as far off as the truth moves when every input moves by half an ulp of the largest one, as inputs are known no better. A
    gradient may be as far off as an ulp of an ordinary one times the largest input, since terms that cancel in it may be that large.
    """

    def __init__(self, oracle: Oracle, ordinary: Sequence[Sequence[np.ndarray]]):
        self.oracle, self.eps, self.most = oracle, eps(oracle.dtype), float(jnp.finfo(oracle.dtype).max)
        truths = [oracle.at(args) for args in ordinary]
        self.usual_value = float(np.median([truth.value.largest for truth in truths]))
        self.usual_gradient = max(truth.gradient.largest for truth in truths)
        self.usual_slope = float(np.median([truth.gradient.magnitude.mean() for truth in truths]))

    def value(self, args: Sequence[np.ndarray], got: float, conditioned: bool = True) -> Distance:
        """How far a value is from the truth at an input."""
        value, gradient = self.oracle.at(args)
        swept = np.abs(args[0].astype(np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            slope_sum, usual_slope_sum = np.nansum(swept * gradient.magnitude), swept.sum() * self.usual_slope
        unit = max(value.largest, 1.0, self.usual_value, usual_slope_sum, slope_sum if np.isfinite(slope_sum) else 0.0)
        return self._distance(value, np.asarray(got), unit, (lambda: self._shaken(args, "value")) if conditioned else None)

    def gradient(self, args: Sequence[np.ndarray], got: np.ndarray, conditioned: bool = True) -> Distance:
        """How far the worst element of a gradient is from the truth at an input."""
        value, gradient = self.oracle.at(args)
        if not value.has_value.all():
            # A gradient has no truth where the function is not defined, whatever the derivative's formula gives.
            return Distance(np.nan, False, 0.0, np.nan)
        unit, least_allowed = max(gradient.largest, self.usual_gradient), self.usual_gradient * self.eps * _largest(args[0])
        return self._distance(
            gradient, got, unit, (lambda: np.maximum(self._shaken(args, "gradient"), least_allowed)) if conditioned else None
        )

    def _distance(self, true: ExactArray, got: np.ndarray, unit: float, allowed: Callable[[], np.ndarray] | None) -> Distance:
        # Truths near the largest number of a type are no fault: a sum of as many terms as the input has may overflow before its mean.
        with np.errstate(over="ignore"):
            near_the_end = true.magnitude * max(self.oracle.scene.size, 1) >= self.most
        known = true.defined & np.isfinite(true.rounded) & ~near_the_end
        faulty = known & ~np.isfinite(got)
        if faulty.any():
            index = np.unravel_index(int(np.argmax(faulty)), got.shape)
            return Distance(np.inf, True, float(got[index]), float(true.rounded[index]))
        comparable = known & np.isfinite(got)
        if not comparable.any():
            return Distance(np.nan, False, *(float(array.flat[0]) if array.size else 0.0 for array in (got, true.rounded)))
        error = np.where(comparable, true.exact.distance(got), 0.0)
        units = np.full(got.shape, (unit or 1.0) * self.eps)
        if allowed is not None and (error / units).max() > PLAIN:
            units = np.maximum(units, allowed())
        ulps = error / units
        index = np.unravel_index(int(np.argmax(ulps)), ulps.shape)
        return Distance(float(ulps[index]), False, float(got[index]), float(true.rounded[index]))

    def _shaken(self, args: Sequence[np.ndarray], what: What) -> np.ndarray:
        """The largest change of the true value or gradient, over a few trials, when the inputs move by half an ulp of the largest one."""
        rng, movable = np.random.default_rng(0), self.oracle.scene.movable
        step = self.eps / 2 * max(_largest(args[position]) for position in movable)
        centre = self.oracle.at(args).of(what).exact.balls
        largest_change = np.zeros(centre.shape)
        for _ in range(TRIALS):
            moved = [
                _moved(arg, step, rng, self.oracle.exact.is_exact) if position in movable else arg for position, arg in enumerate(args)
            ]
            value, gradient = self.oracle.exact.at(*moved)
            balls = (value if what == "value" else gradient).balls
            largest_change = np.maximum(largest_change, np.asarray(np.frompyfunc(_change, 2, 1)(centre, balls), float))
        return largest_change


def _largest(arg: np.ndarray) -> float:
    return float(np.abs(arg.astype(np.float64)).max(initial=0.0))


def _moved(arg: np.ndarray, step: float, rng: np.random.Generator, exactly: bool) -> np.ndarray:
    """An argument with every element moved up or down by the step: in float64 where that stands in for the truth, else exactly."""
    signs = rng.choice([-1, 1], arg.shape)
    if not exactly:
        return arg.astype(np.float64) + step * signs
    out = np.empty(arg.shape, object)
    out[...] = np.frompyfunc(lambda x, sign: arb(float(x)) + arb(step) * int(sign), 2, 1)(arg.astype(np.float64), signs)
    return out


def _change(ball: arb, other: arb) -> float:
    return float(abs(ball - other).mid()) if ball.is_finite() and other.is_finite() else 0.0
