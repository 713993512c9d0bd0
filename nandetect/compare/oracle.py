"""What is true of a loss at an input: the exact value and gradient of its own formula, or where that has none, of what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import truth
from nandetect.compare.scene import Scene
from nandetect.truth import Values

# Derivatives by differences are slow (a value for each element, with many bits): no more inputs than this for each function.
MOST_DIFFERENCES = 6


@dataclass(frozen=True, slots=True)
class True_:
    """Exact value and gradients at one input."""

    value: Values
    gradients: tuple[Values, ...]


@dataclass(slots=True)
class Oracle:
    """The truth about one function in one scene and dtype; `other` is asked where the function's own formula has no value.

    `kin` is whether the two are the same function elsewhere; only then is `other` asked.
    """

    function: Callable[..., Any]
    scene: Scene
    dtype: Any
    exact: Any = None
    value_alone: Any = None
    other: Oracle | None = None
    kin: bool = False
    _own: dict[bytes, True_] = field(default_factory=dict)
    _full: dict[bytes, True_] = field(default_factory=dict)
    _differences: int = 0

    def __post_init__(self) -> None:
        shapes = [
            np.zeros(shape, self.dtype if at in self.scene.argnums else _dtype(self.scene, at, self.dtype))
            for at, shape in enumerate(self.scene.shapes)
        ]
        self.exact = truth.of(jax.value_and_grad(self.function, argnums=self.scene.argnums), *shapes)
        self.value_alone = truth.of(self.function, *shapes)

    def own(self, args: Sequence[np.ndarray]) -> True_:
        """The exact value and gradients of the function's own formula."""
        key = b"".join(arg.tobytes() for arg in args)
        if key not in self._own:
            value, *gradients = self.exact.at(*args)
            self._own[key] = True_(value, tuple(gradients))
        return self._own[key]

    def at(self, args: Sequence[np.ndarray]) -> True_:
        """The truth, undefined (NaN) only where it cannot be told."""
        key = b"".join(arg.tobytes() for arg in args)
        if key not in self._full:
            self._full[key] = self._completed(args)
        return self._full[key]

    def _completed(self, args: Sequence[np.ndarray]) -> True_:
        found = self.own(args)
        if self._is_whole(found):
            return found
        if self.kin and self.other is not None:
            found = _filled(found, self.other.own(args))
        if (
            bool(found.value.defined.all())
            and not self._is_whole(found)
            and self.value_alone.is_exact
            and self._differences < MOST_DIFFERENCES
        ):
            self._differences += 1
            slopes = tuple(truth.derivative_at(self.value_alone, list(args), at) for at in self.scene.argnums)
            found = _filled(found, True_(found.value, slopes))
        return found

    def _is_whole(self, found: True_) -> bool:
        return all(bool((one.defined | (one.infinite != 0)).all()) for one in (found.value, *found.gradients))


def _dtype(scene: Scene, at: int, dtype: Any) -> Any:
    given = None if scene.given is None else np.asarray(scene.given[at])
    if given is not None and given.dtype.kind in "iub":
        return given.dtype
    return np.dtype(np.int32) if scene.roles[at] == "labels" and scene.labels == "classes" else dtype


def _filled(found: True_, other: True_) -> True_:
    """What is undefined in one, from the other."""

    def fill(one: Values, another: Values) -> Values:
        return Values(np.where(one.defined | (one.infinite != 0), one.balls, another.balls))

    return True_(fill(found.value, other.value), tuple(fill(a, b) for a, b in zip(found.gradients, other.gradients, strict=True)))


def eps(dtype: Any) -> float:
    """The distance from 1 to the next number of a dtype: an ulp of 1."""
    return float(jnp.finfo(dtype).eps)
