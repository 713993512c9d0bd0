"""The runner of a loss: its value and gradient as compiled by JAX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from nandetect.compare.ordinary import Args
from nandetect.compare.pair import Loss
from nandetect.compare.parameters import Scene
from nandetect.compare.results import What
from nandetect.errors import UsageError


@dataclass(frozen=True, slots=True)
class Outputs:
    """Values, float64[n], and gradients for the swept argument, float64[n, ...]; `usable` where the inputs are finite."""

    values: np.ndarray
    gradients: np.ndarray
    usable: np.ndarray

    def bad(self, what: What) -> np.ndarray:
        """Where the value or some element of the gradient is not finite though the inputs are, bool[n]."""
        if what == "value":
            return self.usable & ~np.isfinite(self.values)
        return self.usable & ~np.isfinite(self.gradients.reshape(len(self.gradients), -1)).all(-1)


class Runner:
    """One function in one scene and one dtype."""

    def __init__(self, name: str, function: Loss, scene: Scene, dtype: np.dtype):
        self.name, self.function, self.scene, self.dtype = name, function, scene, dtype
        # Compiled for one input, as a user would call it: under vmap or in a loop it would round differently.
        self._both = jax.jit(jax.value_and_grad(function))

    def cast(self, args: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Arguments in the runner's dtype."""
        with np.errstate(over="ignore"):
            return self.scene.cast(args, self.dtype)

    def __call__(self, inputs: Sequence[Args]) -> Outputs:
        """The function's outputs at each input. Raises `UsageError` where it fails though it could be traced."""
        cast = [self.cast(args) for args in inputs]
        usable = np.array([all(_is_finite(arg) for arg in args) for args in cast], bool)
        try:
            outputs = jax.device_get([self._both(*args) for args in cast])
        # Any exception: the user's code runs here.
        except Exception as error:
            raise UsageError(f"{self.name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        values, gradients = (np.stack([np.asarray(output, np.float64) for output in column]) for column in zip(*outputs, strict=True))
        return Outputs(values, gradients, usable)


def _is_finite(arg: np.ndarray) -> bool:
    return bool(np.isfinite(arg.astype(np.float64)).all())
