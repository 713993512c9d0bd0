"""The inputs of the sweep: families of arguments that grow with one size, and single points at which losses are known to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from nandetect.compare import scene as scenes
from nandetect.compare.scene import Scene

LEAST, MOST, PER_DECADE = 1e-6, 1e6, 3
GRID = np.geomspace(LEAST, MOST, 12 * PER_DECADE + 1)
POINT = np.ones(1)

Args = list[Any]


@dataclass(frozen=True, slots=True)
class Family:
    """Arguments for every size. `phrase` says for which inputs, with `{}` for the size. A point is a family of size 1 alone.

    The first of the families of a rank is the one that a reader thinks of first.
    """

    name: str
    phrase: str
    at: Callable[[float], Args]
    rank: int = 5
    grid: np.ndarray = field(default_factory=lambda: GRID)

    @property
    def is_point(self) -> bool:
        return len(self.grid) == 1


class Bases:
    """The random arrays of which the families are made, float64 (labels that are classes: int32)."""

    def __init__(self, scene: Scene, seed: int = 0, most: float = np.inf):
        self.scene, self.rng = scene, np.random.default_rng(seed)
        self.bounds = [bound(name, most) for name in scene.names]
        self.right = self.rng.integers(0, max(scene.classes, 1), scene.shape[:-1]) if scene.shape else np.zeros((), int)
        self.swept = self._normal(scene.shape)
        self.others = [self._other(at) for at in range(1, len(scene.roles))]
        if scene.given is not None:
            self.right = _right_of(scene, self.right)

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        # Numbers of a few bits, so that they are the same in every dtype.
        return np.round(self.rng.normal(size=shape) * 32) / 32

    def _other(self, at: int) -> np.ndarray:
        scene = self.scene
        role, shape = scene.roles[at], scene.shapes[at]
        if role == "fixed":
            assert scene.given is not None
            return np.asarray(scene.given[at])
        if role == "counts":
            return self.rng.poisson(2.0, shape).astype(float)
        if role == "positive":
            return np.abs(self._normal(shape)) + 0.5
        return self.labels() if role == "labels" else self._normal(shape)

    def labels(self) -> np.ndarray:
        """Hard labels, or whatever stands in their place."""
        scene = self.scene
        if scene.labels == "classes":
            return self.right.astype(np.int32)
        if scene.labels == "real":
            return self._normal(scene.shape)
        if not scene.shape:
            return np.ones(())
        return np.eye(scene.shape[-1])[np.minimum(self.right, scene.shape[-1] - 1)]

    def ordinary(self) -> Args:
        """Arguments of about 1."""
        return [self.swept, *self.others]

    def beside(self, swept: np.ndarray, **others: np.ndarray) -> Args:
        """The swept array with the other arguments as they rest, those by position (`_2`) changed."""
        args = [swept, *self.others]
        for at, value in others.items():
            args[int(at[1:])] = value
        return [np.clip(arg, -most, most) if most < MOST else arg for arg, most in zip(args, self.bounds, strict=True)]


def _right_of(scene: Scene, otherwise: np.ndarray) -> np.ndarray:
    """The classes that given labels name."""
    for given, shape in zip((scene.given or ())[1:], scene.shapes[1:], strict=True):
        if shape == scene.shape and shape:
            return np.argmax(given, -1)
        if shape == scene.shape[:-1] and np.asarray(given).dtype.kind in "iu":
            return np.clip(given, 0, scene.classes - 1)
    return otherwise


def families(scene: Scene, seed: int = 0, dtype: Any = np.float32) -> list[Family]:
    """Every family and point that the scene's roles allow."""
    most = float(jnp.finfo(dtype).max)
    bases = Bases(scene, seed, most)
    return [*_of_one(bases, most), *_of_others(bases, most), *_points(bases)]


def sizes(name: str, role: str, most: float) -> np.ndarray:
    """The sizes that an argument goes through, in a type that holds numbers up to `most`.

    A spread may be as small as lets the type hold the inverse of its square: with less, a Gaussian of it has no density that could be
    written down. Where it is swept, of its cube, which is in the derivative.
    """
    largest = bound(name, most)
    if largest < MOST:
        return np.geomspace(LEAST, largest, len(GRID))
    if role == "positive":
        power = 1 if scenes.words_of(name) & scenes.SQUARED else 2
        return np.geomspace(1.1 * most ** (-1 / power), MOST, len(GRID))
    if role == "small":
        return np.geomspace(1.1 * most ** (-1 / 3), MOST, len(GRID))
    return GRID


def bound(name: str, most: float) -> float:
    """How large a number an argument may be: the logarithm of a spread as large as lets the type hold the square of its exponential."""
    words = scenes.words_of(name)
    return 0.999 * np.log(most) / (1 if words & scenes.SQUARED else 2) if "log" in words and words & scenes.SPREADS else np.inf


def _of_one(bases: Bases, most: float) -> Iterator[Family]:
    """What only the swept array goes through."""
    scene, z = bases.scene, bases.swept
    grid = sizes(scene.names[0], "swept", most)
    name = scene.names[0]
    one = name.removesuffix("s") if "logit" in name else f"`{name}`"
    if scene.shape and scene.shape[-1] > 1:
        right = np.eye(scene.shape[-1])[np.minimum(bases.right, scene.shape[-1] - 1)]
        wrong = np.roll(right, 1, -1)
        yield Family("gap, wrong class", f"{one} gaps over {{}}", lambda t: bases.beside(t * wrong), 0)
        yield Family("gap, right class", f"{one} gaps over {{}}", lambda t: bases.beside(t * right), 0)
        yield Family("one far below", f"one {one} below the others by {{}}", lambda t: bases.beside(-t * wrong), 3)
    ones = np.ones(scene.shape)
    plural = name if "logit" in name else f"`{name}`"
    yield Family("all equal", f"{plural} over {{}}", lambda t: bases.beside(t * ones), 1, grid)
    yield Family("all equal, negative", f"{plural} under -{{}}", lambda t: bases.beside(-t * ones), 1, grid)
    yield Family("scale", f"{plural} of scale {{}}", lambda t: bases.beside(t * z), 2, grid)
    yield Family("scale, positive", f"positive {plural} of scale {{}}", lambda t: bases.beside(t * (np.abs(z) + 0.25)), 3, grid)
    yield Family("scale, negative", f"negative {plural} of scale {{}}", lambda t: bases.beside(-t * (np.abs(z) + 0.25)), 3, grid)
    yield Family("offset", f"{plural} of mean {{}} and spread 1", lambda t: bases.beside(t + z), 2, grid)
    yield Family("offset, negative", f"{plural} of mean -{{}} and spread 1", lambda t: bases.beside(z - t), 3, grid)
    yield Family("small spread", f"{plural} of mean {{}} and spread 1/64", lambda t: bases.beside(t + z / 64), 3, grid)
    yield Family("next to 1", f"{plural} within {{}} of 1", lambda t: bases.beside(1 + t * z), 4, grid)
    if scenes.words_of(name) & scenes.POSITIVE and "log" not in scenes.words_of(name):
        small = sizes(name, "small", most)
        yield Family("small", f"{plural} of {{}}", lambda t: bases.beside(t * ones), 2, small)


def _of_others(bases: Bases, most: float) -> Iterator[Family]:
    """What the other arguments go through, alone and together with the swept one."""
    for at in range(1, len(bases.scene.roles)):
        yield from _of_other(bases, at, most)


def _of_other(bases: Bases, at: int, most: float) -> Iterator[Family]:
    scene, z, other = bases.scene, bases.swept, bases.others[at - 1]
    swept, name, role, key = scene.names[0], scene.names[at], scene.roles[at], f"_{at}"
    if role == "labels" and scene.labels == "onehot" and scene.shape:
        soft, noise = np.exp(z) / np.exp(z).sum(-1, keepdims=True), np.roll(z, 1, 0)
        yield Family("scale, soft labels", f"`{swept}` of scale {{}} with soft labels", lambda t: bases.beside(t * noise, **{key: soft}), 3)
    if not _is_alike(bases, at):
        return
    yield Family(f"near {name}", f"`{swept}` within {{}} of `{name}`", lambda t: bases.beside(other + t * z), 4)
    if role not in ("real", "positive"):
        return
    grid, ones = sizes(name, role, most), np.ones(scene.shape)
    equal = next((bases.others[one - 1] for one in range(1, len(scene.roles)) if one != at and _is_alike(bases, one)), None)
    for sign, said in ((1.0, ""), (-1.0, "-")) if role == "real" else ((1.0, ""),):
        size = f"{'over ' if role == 'real' and sign > 0 else 'under ' if sign < 0 else 'of '}{said}{{}}"
        yield Family(f"{name} all {said}t", f"`{name}` {size}", lambda t, s=sign: bases.beside(z, **{key: s * t * ones}), 4, grid)
        if equal is not None:
            words = f"`{name}` {size} where the others are equal"
            yield Family(f"{name} all {said}t, others equal", words, lambda t, s=sign: bases.beside(equal, **{key: s * t * ones}), 4, grid)
    yield Family(f"{name} scale", f"`{name}` of scale {{}}", lambda t: bases.beside(z, **{key: t * other}), 4, grid)
    if role == "real":
        yield Family(
            f"both scale with {name}", f"`{swept}` and `{name}` of scale {{}}", lambda t: bases.beside(t * z, **{key: t * other}), 3
        )
        words = f"`{swept}` and `{name}` of scale {{}} and opposite signs"
        yield Family(f"opposite {name}", words, lambda t: bases.beside(-t * other, **{key: t * other}), 4)
        for sign, said in ((1.0, ""), (-1.0, "-")):
            words = f"`{swept}` {'over' if sign > 0 else 'under'} {said}{{}} with `{name}` of zeros"
            swept_sizes = sizes(swept, "swept", most)
            yield Family(
                f"all {said}t, {name} zeros", words, lambda t, s=sign: bases.beside(s * t * ones, **{key: 0 * other}), 4, swept_sizes
            )


def _is_alike(bases: Bases, at: int) -> bool:
    """Whether an argument is an array of floats of the swept one's shape."""
    return bases.scene.shapes[at] == bases.scene.shape and np.asarray(bases.others[at - 1]).dtype.kind not in "iu"


def _points(bases: Bases) -> Iterator[Family]:
    """Single inputs: zeros, ties, equal arguments."""
    scene, z = bases.scene, bases.swept

    def point(name: str, phrase: str, args: Args) -> Family:
        return Family(name, phrase, lambda t: args, 4, POINT)

    yield point("ordinary", "ordinary inputs", bases.ordinary())
    yield point("zeros", f"`{scene.names[0]}` of zeros", bases.beside(0 * z))
    if z.size > 1:
        one = np.array(z)
        one.flat[0] = 0.0
        yield point("a zero", f"a zero in `{scene.names[0]}`", bases.beside(one))
    if len(scene.shape) > 1:
        rows = np.array(z)
        rows[0] = 0.0
        yield point("a row of zeros", f"a row of zeros in `{scene.names[0]}`", bases.beside(rows))
    for at, role in enumerate(scene.roles[1:], 1):
        other, name = bases.others[at - 1], scene.names[at]
        if not _is_alike(bases, at):
            continue
        yield point(f"equal to {name}", f"`{scene.names[0]}` equal to `{name}`", bases.beside(np.asarray(other, float)))
        if role in ("real", "positive"):
            yield point(f"{name} zeros", f"`{name}` of zeros", bases.beside(z, **{f"_{at}": 0 * other}))
            yield point(
                f"both zeros with {name}", f"`{scene.names[0]}` and `{name}` of zeros", bases.beside(0 * z, **{f"_{at}": 0 * other})
            )
            if len(scene.shape) > 1:
                rows = np.array(z)
                rows[0] = other[0]
                yield point(f"a row equal to {name}", f"a row of `{scene.names[0]}` equal to `{name}`", bases.beside(rows))
