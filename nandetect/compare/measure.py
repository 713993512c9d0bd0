"""How far a result is from the truth, in ulps that a sound computation could be off by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flint import arb

from nandetect.compare.oracle import Oracle, True_, eps
from nandetect.truth import Values

# Below this many raw ulps nobody asks whether the input's own rounding explains them.
PLAIN = 4.0
TRIALS = 3


@dataclass(frozen=True, slots=True)
class Distance:
    """Ulps of the worst element, NaN where there is no truth; `faulty` where it is not finite and the truth is."""

    ulps: float
    faulty: bool
    got: float
    truth: float


class Gauge:
    """Measures one function's results in one dtype.

    An error of the value is counted in ulps of the largest of: the true value, 1, and what half an ulp in every input may do (the sum of
    |x df/dx|). An error of the gradient in ulps of the largest of: the true element, the largest element, the largest of an ordinary
    gradient (at inputs of about 1), and what rounding the inputs may do to it (measured: the truth at inputs moved by half an ulp).
    """

    def __init__(self, oracle: Oracle, ordinary: Sequence[Sequence[np.ndarray]]):
        self.oracle, self.eps, self.most = oracle, eps(oracle.dtype), float(jnp.finfo(oracle.dtype).max)
        gradients = [oracle.at(args).gradients for args in ordinary]
        self.floors = [max(_largest(gradient[at]) for gradient in gradients) for at in range(len(oracle.scene.argnums))]

    def value(self, args: Sequence[np.ndarray], got: float, conditioned: bool = True) -> Distance:
        """Of the value."""
        true = self.oracle.at(args)
        unit = max(_largest(true.value), 1.0, self._steepness(args, true))
        return self._distance(args, true.value, np.asarray(got), np.asarray(unit * self.eps), None if conditioned else False, -1)

    def gradient(self, args: Sequence[np.ndarray], got: Sequence[np.ndarray], conditioned: bool = True) -> Distance:
        """Of the worst element of the gradients."""
        true = self.oracle.at(args)
        worst = Distance(0.0, False, 0.0, 0.0)
        for at, (one, gradient) in enumerate(zip(got, true.gradients, strict=True)):
            unit = np.maximum(np.nan_to_num(gradient.magnitude, posinf=0.0), max(_largest(gradient), self.floors[at]))
            found = self._distance(args, gradient, one, unit * self.eps, None if conditioned else False, at)
            worst = max(worst, found, key=lambda distance: (distance.faulty, np.nan_to_num(distance.ulps, nan=-1.0)))
        return worst

    def _distance(
        self, args: Sequence[np.ndarray], true: Values, got: np.ndarray, unit: np.ndarray, conditioned: bool | None, which: int
    ) -> Distance:
        if got.size == 0:
            return Distance(0.0, False, 0.0, 0.0)
        rounded = true.rounded(self.oracle.dtype).astype(np.float64)
        # A sum of as many terms as the input has may overflow before its mean does: that close to the end of the range nobody is blamed.
        near_the_end = np.nan_to_num(true.magnitude, nan=0.0) * max(np.size(args[0]), 1) >= self.most
        told = true.defined & np.isfinite(rounded) & ~near_the_end
        faulty = told & ~np.isfinite(got)
        if faulty.any():
            where = np.unravel_index(int(np.argmax(faulty)), got.shape)
            return Distance(np.inf, True, float(got[where]), float(rounded[where]))
        judged = told & np.isfinite(got)
        if not judged.any():
            return Distance(np.nan, False, float(got.flat[0]), float(rounded.flat[0]))
        error = np.where(judged, true.distance(got), 0.0)
        unit = np.where(unit > 0, unit, self.eps)
        ulps = error / unit
        if conditioned is None and ulps.max() > PLAIN:
            ulps = error / np.maximum(unit, self._shaken(args, true, which))
        where = np.unravel_index(int(np.argmax(ulps)), ulps.shape)
        return Distance(float(ulps[where]), False, float(got[where]), float(rounded[where]))

    def _steepness(self, args: Sequence[np.ndarray], true: True_) -> float:
        """The sum of |x df/dx| over the differentiated arguments."""
        total = 0.0
        for at, gradient in zip(self.oracle.scene.argnums, true.gradients, strict=True):
            products = np.abs(np.asarray(args[at], np.float64)) * gradient.magnitude
            total += float(products[np.isfinite(products)].sum())
        return total

    def _shaken(self, args: Sequence[np.ndarray], true: Values, which: int) -> np.ndarray:
        """How much the truth changes where every floating input moves by half an ulp, at most over a few trials."""
        rng = np.random.default_rng(0)
        most = np.zeros(true.shape)
        for _ in range(TRIALS):
            moved = [_moved(arg, self.eps / 2, rng) for arg in args]
            value, *gradients = self.oracle.exact.at(*moved)
            there = value if which < 0 else gradients[which]
            shifts = np.frompyfunc(_apart, 2, 1)(true.balls, there.balls)
            most = np.maximum(most, np.asarray(shifts, float))
        return most


def _moved(arg: np.ndarray, by: float, rng: np.random.Generator) -> np.ndarray:
    """Every element times 1 + by or 1 - by, exactly."""
    if arg.dtype.kind in "iub":
        return arg
    signs = rng.choice([-1, 1], arg.shape)
    move: Any = lambda x, sign: arb(float(x)) * (1 + arb(by) * int(sign))
    out = np.empty(arg.shape, object)
    out[...] = np.frompyfunc(move, 2, 1)(arg.astype(np.float64), signs)
    return out


def _apart(one: arb, other: arb) -> float:
    if not (one.is_finite() and other.is_finite()):
        return 0.0
    return float(abs(one - other).mid())


def _largest(values: Values) -> float:
    magnitude = values.magnitude
    finite = magnitude[np.isfinite(magnitude)]
    return float(finite.max()) if finite.size else 0.0
