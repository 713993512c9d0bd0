"""A loss and its gradient as they are compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from nandetect.compare.families import Args
from nandetect.compare.scene import Scene
from nandetect.errors import UsageError


@dataclass(frozen=True, slots=True)
class Results:
    """Values, float64[n], and gradients for the swept argument, float64[n, ...]; `usable` where the inputs are finite."""

    values: np.ndarray
    gradients: np.ndarray
    usable: np.ndarray

    def bad(self, what: str) -> np.ndarray:
        """Where the value or some element of the gradient is not finite though the inputs are, bool[n]."""
        if what == "value":
            return self.usable & ~np.isfinite(self.values)
        return self.usable & ~np.isfinite(self.gradients.reshape(len(self.gradients), -1)).all(-1)


class Runner:
    """One function in one scene and one dtype."""

    def __init__(self, name: str, function: Callable[..., Any], scene: Scene, dtype: Any):
        self.name, self.function, self.scene, self.dtype = name, function, scene, np.dtype(dtype)
        # Input by input, as a user would call it: under vmap or in a loop it compiles to something that rounds differently.
        self._both = jax.jit(jax.value_and_grad(function))

    def cast(self, args: Sequence[Any]) -> list[np.ndarray]:
        """Arguments in the runner's dtype."""
        with np.errstate(over="ignore"):
            return self.scene.cast(args, self.dtype)

    def __call__(self, inputs: Sequence[Args]) -> Results:
        """Raises `UsageError` where the function fails though it could be traced."""
        cast = [self.cast(args) for args in inputs]
        usable = np.array([all(_is_finite(arg) for arg in args) for args in cast], bool)
        try:
            results = jax.device_get([self._both(*args) for args in cast])
        # The user's code, which may raise anything at all.
        except Exception as error:
            raise UsageError(f"{self.name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        values, gradients = (np.stack([np.asarray(one, np.float64) for one in column]) for column in zip(*results, strict=True))
        return Results(values, gradients, usable)


def _is_finite(arg: np.ndarray) -> bool:
    return bool(np.isfinite(arg.astype(np.float64)).all())
