"""The inputs of the sweep: families of arguments that grow with one size, and single points at which losses are known to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nandetect.compare.ordinary import LARGEST, Args, Bases, bound
from nandetect.compare.parameters import POSITIVE, SQUARED, Scene, words_of

SMALLEST, PER_DECADE = 1e-6, 3
GRID = np.geomspace(SMALLEST, LARGEST, 12 * PER_DECADE + 1)
POINT = np.ones(1)


@dataclass(frozen=True, slots=True)
class Family:
    """Arguments for every size: `at` makes them. `phrase` says in words which inputs they are, with `{}` for the size.

    The lower the `rank`, the sooner a reader thinks of such inputs. A point is a family whose only size is 1.
    """

    name: str
    phrase: str
    at: Callable[[float], Args]
    rank: int = 5
    grid: np.ndarray = field(default_factory=lambda: GRID)

    @property
    def is_point(self) -> bool:
        return len(self.grid) == 1


def families(scene: Scene, seed: int = 0, dtype: DTypeLike = np.float32) -> list[Family]:
    """Every family and point that the scene's roles allow."""
    largest_number = float(jnp.finfo(dtype).max)
    bases = Bases(scene, seed, largest_number)
    others = (family for position in range(1, len(scene.roles)) for family in _of_other(bases, position, largest_number))
    return [*_of_swept(bases, largest_number), *others, *_points(bases)]


def sizes(name: str, role: str, largest_number: float) -> np.ndarray:
    """The sizes that an argument goes through, in a type that holds numbers up to `largest_number`.

    A spread is at least so large that the type holds the inverse of its square: the density of a narrower Gaussian could not be written
    down. A spread that is swept is so large that the type holds the inverse of its cube, which is in the derivative.
    """
    largest = bound(name, largest_number)
    if largest < LARGEST:
        return np.geomspace(SMALLEST, largest, len(GRID))
    if role == "positive":
        power = 1 if words_of(name) & SQUARED else 2
        return np.geomspace(1.1 * largest_number ** (-1 / power), LARGEST, len(GRID))
    if role == "small":
        return np.geomspace(1.1 * largest_number ** (-1 / 3), LARGEST, len(GRID))
    return GRID


def _of_swept(bases: Bases, largest_number: float) -> Iterator[Family]:
    """The families in which the swept array changes and the other arguments rest."""
    scene, z = bases.scene, bases.swept
    name = scene.names[0]
    grid = sizes(name, "swept", largest_number)
    if scene.shape and scene.shape[-1] > 1:
        yield from _gaps(bases, name.removesuffix("s") if "logit" in name else f"`{name}`")
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
    words = words_of(name)
    if words & POSITIVE and "log" not in words:
        yield Family("small", f"{plural} of {{}}", lambda t: bases.beside(t * ones), 2, sizes(name, "small", largest_number))


def _gaps(bases: Bases, singular: str) -> Iterator[Family]:
    """The families in which one element of each row is far from the others."""
    right = bases.onehot()
    wrong = np.roll(right, 1, -1)
    yield Family("gap, wrong class", f"{singular} gaps over {{}}", lambda t: bases.beside(t * wrong), 0)
    yield Family("gap, right class", f"{singular} gaps over {{}}", lambda t: bases.beside(t * right), 0)
    yield Family("one far below", f"one {singular} below the others by {{}}", lambda t: bases.beside(-t * wrong), 3)


def _of_other(bases: Bases, position: int, largest_number: float) -> Iterator[Family]:
    """The families in which another argument changes, alone or together with the swept one."""
    scene, z, other = bases.scene, bases.swept, bases.others[position - 1]
    swept, name, role = scene.names[0], scene.names[position], scene.roles[position]
    if role == "labels" and scene.labels == "onehot" and scene.shape:
        soft, noise = np.exp(z) / np.exp(z).sum(-1, keepdims=True), np.roll(z, 1, 0)
        phrase = f"`{swept}` of scale {{}} with soft labels"
        yield Family("scale, soft labels", phrase, lambda t: bases.beside(t * noise, {position: soft}), 3)
    if not _is_like_swept(bases, position):
        return
    yield Family(f"near {name}", f"`{swept}` within {{}} of `{name}`", lambda t: bases.beside(other + t * z), 4)
    if role in ("real", "positive"):
        yield from _alone(bases, position, sizes(name, role, largest_number))
    if role == "real":
        yield from _together(bases, position, sizes(swept, "swept", largest_number))


def _alone(bases: Bases, position: int, grid: np.ndarray) -> Iterator[Family]:
    """The families in which another argument of floats changes while the swept one rests."""
    scene, z, other = bases.scene, bases.swept, bases.others[position - 1]
    name, role, ones = scene.names[position], scene.roles[position], np.ones(scene.shape)
    equal = next((bases.others[p - 1] for p in range(1, len(scene.roles)) if p != position and _is_like_swept(bases, p)), None)
    for sign, minus in ((1.0, ""), (-1.0, "-")) if role == "real" else ((1.0, ""),):
        reach = f"{'over ' if role == 'real' and sign > 0 else 'under ' if sign < 0 else 'of '}{minus}{{}}"

        def all_equal(t: float, swept: np.ndarray, sign: float = sign) -> Args:
            return bases.beside(swept, {position: sign * t * ones})

        yield Family(f"{name} all {minus}t", f"`{name}` {reach}", lambda t, args=all_equal: args(t, z), 4, grid)
        if equal is not None:
            phrase = f"`{name}` {reach} where the others are equal"
            yield Family(f"{name} all {minus}t, others equal", phrase, lambda t, args=all_equal: args(t, equal), 4, grid)
    yield Family(f"{name} scale", f"`{name}` of scale {{}}", lambda t: bases.beside(z, {position: t * other}), 4, grid)


def _together(bases: Bases, position: int, swept_grid: np.ndarray) -> Iterator[Family]:
    """The families in which the swept array grows and another argument of any floats grows with it, or is zero."""
    scene, z, other = bases.scene, bases.swept, bases.others[position - 1]
    swept, name, ones = scene.names[0], scene.names[position], np.ones(scene.shape)
    both = f"`{swept}` and `{name}` of scale {{}}"
    yield Family(f"both scale with {name}", both, lambda t: bases.beside(t * z, {position: t * other}), 3)
    yield Family(f"opposite {name}", f"{both} and opposite signs", lambda t: bases.beside(-t * other, {position: t * other}), 4)
    for sign, minus in ((1.0, ""), (-1.0, "-")):

        def beside_zeros(t: float, sign: float = sign) -> Args:
            return bases.beside(sign * t * ones, {position: 0 * other})

        phrase = f"`{swept}` {'over' if sign > 0 else 'under'} {minus}{{}} with `{name}` of zeros"
        yield Family(f"all {minus}t, {name} zeros", phrase, beside_zeros, 4, swept_grid)


def _is_like_swept(bases: Bases, position: int) -> bool:
    """Whether an argument is an array of floats of the swept one's shape."""
    return bases.scene.shapes[position] == bases.scene.shape and bases.others[position - 1].dtype.kind not in "iu"


def _points(bases: Bases) -> Iterator[Family]:
    """The points: zeros, ties, equal arguments."""
    scene, z = bases.scene, bases.swept
    swept = f"`{scene.names[0]}`"
    yield _point("ordinary", "ordinary inputs", bases.ordinary())
    yield _point("zeros", f"{swept} of zeros", bases.beside(0 * z))
    if z.size > 1:
        with_zero = np.array(z)
        with_zero.flat[0] = 0.0
        yield _point("a zero", f"a zero in {swept}", bases.beside(with_zero))
    if len(scene.shape) > 1:
        rows = np.array(z)
        rows[0] = 0.0
        yield _point("a row of zeros", f"a row of zeros in {swept}", bases.beside(rows))
    for position in range(1, len(scene.roles)):
        if _is_like_swept(bases, position):
            yield from _points_of_other(bases, position)


def _points_of_other(bases: Bases, position: int) -> Iterator[Family]:
    """The points at which another argument is zero or equals the swept one."""
    scene, z, other = bases.scene, bases.swept, bases.others[position - 1]
    swept, name = f"`{scene.names[0]}`", scene.names[position]
    yield _point(f"equal to {name}", f"{swept} equal to `{name}`", bases.beside(np.asarray(other, float)))
    if scene.roles[position] not in ("real", "positive"):
        return
    zeros = {position: 0 * other}
    yield _point(f"{name} zeros", f"`{name}` of zeros", bases.beside(z, zeros))
    yield _point(f"both zeros with {name}", f"{swept} and `{name}` of zeros", bases.beside(0 * z, zeros))
    if len(scene.shape) > 1:
        rows = np.array(z)
        rows[0] = other[0]
        yield _point(f"a row equal to {name}", f"a row of {swept} equal to `{name}`", bases.beside(rows))


def _point(name: str, phrase: str, args: Args) -> Family:
    return Family(name, phrase, lambda t: args, 4, POINT)
