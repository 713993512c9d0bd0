"""What the two functions are called with: the role of every parameter, found from its name and by trying."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import nonfinite
from nandetect.compare import pair
from nandetect.compare.pair import Side
from nandetect.errors import UsageError
from nandetect.targets import arguments, traceable
from nandetect.targets.traceable import Traceable

Role = Literal["swept", "real", "positive", "labels", "counts", "fixed"]
LABELS = ("onehot", "classes", "real", "none")
SHAPE = (4, 10)
CLASSES = 10
_LABELS = {
    "label",
    "labels",
    "target",
    "targets",
    "y",
    "ys",
    "onehot",
    "hot",
    "true",
    "truth",
    "gt",
    "class",
    "classes",
    "idx",
    "index",
    "t",
}
_CLASSES = {"class", "classes", "idx", "index", "ids", "int"}
_COUNTS = {"count", "counts", "k", "n", "events"}
POSITIVE = {
    "sigma",
    "std",
    "stddev",
    "scale",
    "var",
    "variance",
    "rate",
    "rates",
    "lam",
    "temperature",
    "tau",
    "weight",
    "weights",
    "beta",
}
# What measures a spread; what measures its square.
SQUARED = {"var", "variance", "variances", "precision"}
SPREADS = SQUARED | {"sigma", "sigmas", "std", "stddev", "scale", "sd"}


def words_of(name: str) -> set[str]:
    """The words of a parameter's name."""
    return set(
        re.split(
            r"[_\d]+",
            re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
            .lower()
            .replace("logvar", "log_var")
            .replace("logsigma", "log_sigma")
            .replace("logstd", "log_std"),
        )
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """The parameters in order, with role and shape; `given` holds the arrays of an archive. `labels` is the kind that was settled on."""

    names: tuple[str, ...]
    roles: tuple[Role, ...]
    shapes: tuple[tuple[int, ...], ...]
    labels: str
    classes: int
    given: tuple[Any, ...] | None = None

    @property
    def movable(self) -> tuple[int, ...]:
        """The arguments that may be any numbers, so that their own rounding counts: not labels of zeros and ones."""
        return tuple(at for at, role in enumerate(self.roles) if role in ("swept", "real") or (role == "labels" and self.labels == "real"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the swept array."""
        return self.shapes[0]

    @property
    def size(self) -> int:
        """How many numbers the swept array holds."""
        return math.prod(self.shape)

    def kinds(self, dtype: Any) -> list[Any]:
        """The dtype of every argument, where floats are to be of `dtype`."""
        return [arg.dtype for arg in self.cast(example(self), dtype)]

    def cast(self, args: Sequence[Any], dtype: Any) -> list[Any]:
        """Arguments as arrays of the dtype; whole numbers stay so."""
        return [np.asarray(arg) if np.asarray(arg).dtype.kind in "iub" else np.asarray(arg, np.float64).astype(dtype) for arg in args]

    def moved(self, shape: tuple[int, ...]) -> Scene:
        """The same with another shape of the swept array, and of all that goes with it."""
        kinds = zip(self.roles, self.shapes, strict=True)
        return replace(self, shapes=tuple(_beside(role, old, self.shape, shape) for role, old in kinds))


def _beside(role: Role, old: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    return after if old == before else after[:-1] if old == before[:-1] else old


def scene(
    sides: tuple[Side, Side],
    dtype: Any,
    labels: str | None = None,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    archive: Path | None = None,
) -> Scene:
    """The first way to call both that gives one number. Raises `UsageError` where there is none, with what the first way met."""
    if labels is not None and labels not in LABELS:
        raise UsageError(f"--labels {labels} is not known; give {', '.join(LABELS[:-1])} or {LABELS[-1]}")
    names, others = (pair.parameters(side) for side in sides)
    if archive is not None:
        return _from_archive(sides, names, archive, dtype)
    if len(names) != len(others):
        counts = " and ".join(f"{side.name} {len(taken)} ({', '.join(taken)})" for side, taken in zip(sides, (names, others), strict=True))
        raise UsageError(f"the two losses take different numbers of arguments: {counts}")
    refused: list[UsageError] = []
    for made in _candidates(names, others, labels, shape, classes):
        try:
            for side in sides:
                check(side, made, dtype)
            return made
        except UsageError as error:
            refused.append(error)
            if isinstance(error, NotOneNumber):
                break
    told = [error for error in refused if isinstance(error, NotOneNumber)] or refused
    raise UsageError(str(told[0]))


class NotOneNumber(UsageError):
    """A function could be called, and returned something else than one floating number."""


def check(side: Side, scene: Scene, dtype: Any) -> None:
    """Trace a function in a scene. Raises `UsageError` where it does not fit, `NotOneNumber` where it does and returns no number."""
    args = scene.cast(example(scene), dtype)
    _, returned = traceable.trace(Traceable(side.name, side.function, tuple(jax.ShapeDtypeStruct(arg.shape, arg.dtype) for arg in args)))
    if getattr(returned, "shape", None) != () or not jnp.issubdtype(returned.dtype, jnp.floating):
        kinds = [f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for leaf in jax.tree.leaves(returned)]
        raise NotOneNumber(
            f"{side.name} returns {', '.join(kinds) or 'nothing'} for `{scene.names[0]}` of shape {list(scene.shape)}, "
            "and a loss returns one floating number: take its mean, or give a smaller --shape"
        )


def example(scene: Scene) -> list[Any]:
    """Ordinary arguments, of about 1."""
    from nandetect.compare import families

    return families.Bases(scene).ordinary()


def _candidates(
    names: tuple[str, ...], others: tuple[str, ...], labels: str | None, shape: tuple[int, ...] | None, classes: int | None
) -> Iterator[Scene]:
    shape = shape if shape is not None else (SHAPE[0], classes) if classes else SHAPE
    # What does not trace on a batch may be meant for one example, or for one number.
    shapes = [shape, *([shape[-1:], ()] if shape == SHAPE or classes else [])]
    roles = _roles(names, labels)
    if "labels" not in roles:
        roles = _roles(others, labels)
    kinds = _kinds(names, others, roles) if labels is None else [labels]
    for one in dict.fromkeys(shapes):
        for kind in kinds:
            yield Scene(names, roles, tuple(_shape(role, kind, one) for role in roles), kind, classes or (one[-1] if one else 1))


def _roles(names: tuple[str, ...], labels: str | None) -> tuple[Role, ...]:
    roles: list[Role] = ["swept", *(_role(name, labels) for name in names[1:])]
    if labels not in (None, "none") and "labels" not in roles and len(roles) > 1:
        roles[-1] = "labels"
    return tuple(roles)


def _role(name: str, labels: str | None) -> Role:
    words = words_of(name)
    if "logits" in words or "logit" in words or "log" in words or "pred" in words:
        return "real"
    if words & _COUNTS and labels is None:
        return "counts"
    if words & _LABELS and labels != "none":
        return "labels"
    return "positive" if words & POSITIVE else "real"


def _kinds(names: tuple[str, ...], others: tuple[str, ...], roles: tuple[Role, ...]) -> list[str]:
    """The kinds of labels to try, the likeliest first."""
    if "labels" not in roles:
        return ["none"]
    at = roles.index("labels")
    words = words_of(f"{names[at]}_{others[at]}")
    if words & _CLASSES:
        return ["classes", "onehot", "real"]
    # Beside more than one prediction, as a mean and a spread, what is predicted is a number.
    return ["real", "onehot", "classes"] if at > 1 else ["onehot", "classes", "real"]


def _shape(role: Role, kind: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:-1] if role == "labels" and kind == "classes" else shape


def _from_archive(sides: tuple[Side, Side], names: tuple[str, ...], archive: Path, dtype: Any) -> Scene:
    given = arguments.from_archive(sides[0].function, archive)
    arrays = [np.asarray(arg) for arg in given if not isinstance(arg, dict)]
    if len(arrays) != len(given) or not arrays:
        raise UsageError(f"{archive} should hold one array for each argument of {sides[0].name}({', '.join(names)})")
    if not nonfinite.is_inexact(arrays[0]) or np.iscomplexobj(arrays[0]):
        raise UsageError(f"the first array of {archive} is swept, and should be of floats; it is of {arrays[0].dtype}")
    roles: tuple[Role, ...] = ("swept", *("fixed" for _ in arrays[1:]))
    made = Scene(
        tuple(names[: len(arrays)]),
        roles,
        tuple(arg.shape for arg in arrays),
        "given",
        arrays[0].shape[-1] if arrays[0].ndim else 1,
        tuple(arrays),
    )
    for side in sides:
        check(side, made, dtype)
    return made
