"""The truth about a loss at an input: exact value and gradient of its formula, or, where that has none, of the function it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nandetect import truth
from nandetect.compare.ordinary import dtypes
from nandetect.compare.pair import Loss
from nandetect.compare.parameters import Scene
from nandetect.compare.results import What
from nandetect.truth import Values

# Inputs of a function at which its derivative may be taken by differences, which is slow: each element takes three values with many bits.
MOST_DIFFERENCES = 6


class ExactArray:
    """An exact value or gradient; its properties are computed once."""

    def __init__(self, exact: Values, dtype: np.dtype):
        self.exact, self.dtype = exact, dtype

    @cached_property
    def defined(self) -> np.ndarray:
        """Where the exact value is a real number."""
        return self.exact.defined

    @cached_property
    def has_value(self) -> np.ndarray:
        """Where the exact value is a real number or infinite."""
        return self.defined | (self.exact.infinite != 0)

    @cached_property
    def magnitude(self) -> np.ndarray:
        """The absolute value, float64; 0 where there is none."""
        return np.where(self.defined, self.exact.magnitude, 0.0)

    @cached_property
    def rounded(self) -> np.ndarray:
        """The exact values rounded to the dtype, as float64."""
        return self.exact.rounded(self.dtype).astype(np.float64)

    @cached_property
    def largest(self) -> float:
        """The largest finite magnitude."""
        finite = self.magnitude[np.isfinite(self.magnitude)]
        return float(finite.max()) if finite.size else 0.0

    def completed(self, other: Values) -> ExactArray:
        """This array, with elements that have no value here taken from the other."""
        return ExactArray(Values(np.where(self.has_value, self.exact.balls, other.balls)), self.dtype)


class Truth(NamedTuple):
    """The true value and the true gradient at one input."""

    value: ExactArray
    gradient: ExactArray

    def of(self, what: What) -> ExactArray:
        return self.value if what == "value" else self.gradient


class Oracle:
    """The truth about one function's value and its gradient for the swept argument, in one scene and dtype.

    Where its own formula is 0/0 or 0 * inf, the formula of the `other` function is taken, if the two are the same function elsewhere; where
    that has no value either, the derivative of the exact value by differences.
    """

    def __init__(self, function: Loss, scene: Scene, dtype: np.dtype):
        self.scene, self.dtype = scene, dtype
        shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in zip(scene.shapes, dtypes(scene, dtype), strict=True)]
        # Jitted, so that a function for which float64 must stand in is compiled once.
        self.exact = truth.of(jax.jit(jax.value_and_grad(function)), *shapes)
        self.value_alone = truth.of(function, *shapes)
        self.other: Oracle | None = None
        self._own: dict[bytes, Truth] = {}
        self._full: dict[bytes, Truth] = {}
        self._differences = 0

    def own(self, args: Sequence[np.ndarray]) -> Truth:
        """The exact value and gradient of the function's own formula."""
        key = b"".join(arg.tobytes() for arg in args)
        if key not in self._own:
            with np.errstate(all="ignore"):
                value, gradient = self.exact.at(*args)
            self._own[key] = Truth(ExactArray(value, self.dtype), ExactArray(gradient, self.dtype))
        return self._own[key]

    def at(self, args: Sequence[np.ndarray]) -> Truth:
        """The truth at an input, undefined only where neither formula nor the differences give it."""
        key = b"".join(arg.tobytes() for arg in args)
        if key not in self._full:
            self._full[key] = self._completed(args)
        return self._full[key]

    def _completed(self, args: Sequence[np.ndarray]) -> Truth:
        value, gradient = self.own(args)
        if value.has_value.all() and gradient.has_value.all():
            return Truth(value, gradient)
        if self.other is not None:
            other_truth = self.other.own(args)
            value, gradient = value.completed(other_truth.value.exact), gradient.completed(other_truth.gradient.exact)
        if value.defined.all() and not gradient.has_value.all() and self.value_alone.is_exact and self._differences < MOST_DIFFERENCES:
            self._differences += 1
            with np.errstate(all="ignore"):
                gradient = gradient.completed(truth.derivative_at(self.value_alone, list(args), 0))
        return Truth(value, gradient)


def eps(dtype: DTypeLike) -> float:
    """The distance from 1 to the next number of a dtype: an ulp of 1."""
    return float(jnp.finfo(dtype).eps)
