"""The ordinary arguments of a scene, random arrays of about 1, from which all inputs of the sweep are made."""

from __future__ import annotations

import numpy as np

from nandetect.compare.parameters import SPREADS, SQUARED, Scene, words_of

# The largest size of a family in the sweep.
LARGEST = 1e6

Args = list[np.ndarray]


class Bases:
    """The random arrays from which the families are made, float64 (int32 for labels that are classes); `right` are the right classes."""

    def __init__(self, scene: Scene, seed: int = 0, largest_number: float = np.inf):
        self.scene, self.rng = scene, np.random.default_rng(seed)
        self.bounds = [bound(name, largest_number) for name in scene.names]
        self.right = self.rng.integers(0, max(scene.classes, 1), scene.shape[:-1]) if scene.shape else np.zeros((), int)
        self.swept = self._normal(scene.shape)
        self.others = [self._other(position) for position in range(1, len(scene.roles))]
        if scene.given is not None:
            self.right = _right_classes(scene, self.right)

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        # Multiples of 1/32 have few bits, so that they are the same in every dtype.
        return np.round(self.rng.normal(size=shape) * 32) / 32

    def _other(self, position: int) -> np.ndarray:
        """An argument beside the swept one, by its role."""
        scene = self.scene
        role, shape = scene.roles[position], scene.shapes[position]
        if role == "fixed":
            assert scene.given is not None
            return np.asarray(scene.given[position])
        if role == "counts":
            return self.rng.poisson(2.0, shape).astype(float)
        if role == "positive":
            return np.abs(self._normal(shape)) + 0.5
        return self.labels() if role == "labels" else self._normal(shape)

    def labels(self) -> np.ndarray:
        """The labels of the scene's kind: classes, one-hot rows, or numbers."""
        scene = self.scene
        if scene.labels == "classes":
            return self.right.astype(np.int32)
        if scene.labels == "real":
            return self._normal(scene.shape)
        return self.onehot() if scene.shape else np.ones(())

    def onehot(self) -> np.ndarray:
        """The right classes as one-hot rows, of the swept array's shape."""
        columns = self.scene.shape[-1]
        return np.eye(columns)[np.minimum(self.right, columns - 1)]

    def ordinary(self) -> Args:
        """Arguments of about 1."""
        return [self.swept, *self.others]

    def beside(self, swept: np.ndarray, changed: dict[int, np.ndarray] | None = None) -> Args:
        """A swept array with the other arguments, those in `changed` replaced by position; each is clipped to its bound."""
        args = [swept, *self.others]
        for position, value in (changed or {}).items():
            args[position] = value
        return [
            np.clip(arg, -largest_number, largest_number) if largest_number < LARGEST else arg
            for arg, largest_number in zip(args, self.bounds, strict=True)
        ]


def bound(name: str, largest_number: float) -> float:
    """The largest number that an argument may hold, in a type that holds numbers up to `largest_number`; infinite where nothing bounds it.

    The logarithm of a spread is bounded, so that the type holds the square of its exponential.
    """
    words = words_of(name)
    return 0.999 * np.log(largest_number) / (1 if words & SQUARED else 2) if "log" in words and words & SPREADS else np.inf


def _right_classes(scene: Scene, otherwise: np.ndarray) -> np.ndarray:
    """The classes that the labels of the archive name; `otherwise` where it has none."""
    for labels, shape in zip((scene.given or ())[1:], scene.shapes[1:], strict=True):
        if shape == scene.shape and shape:
            return np.argmax(labels, -1)
        if shape == scene.shape[:-1] and labels.dtype.kind in "iu":
            return np.clip(labels, 0, scene.classes - 1)
    return otherwise


def example(scene: Scene) -> Args:
    """One set of ordinary arguments."""
    return Bases(scene).ordinary()


def dtypes(scene: Scene, dtype: np.dtype) -> list[np.dtype]:
    """The dtype of every argument, where floats are to be of `dtype`."""
    return [arg.dtype for arg in scene.cast(example(scene), dtype)]
