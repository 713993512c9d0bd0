"""The scene of a comparison: the first way to call both functions in which each can be traced and returns one number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import nonfinite
from nandetect.compare import pair
from nandetect.compare.ordinary import example
from nandetect.compare.pair import Side
from nandetect.compare.parameters import LABELS, Role, Scene, kinds_of_labels, roles
from nandetect.errors import UsageError
from nandetect.targets import arguments, traceable
from nandetect.targets.traceable import Traceable

SHAPE = (4, 10)


class NotOneNumber(UsageError):
    """A function could be called, and returned something other than one floating number."""


def scene(
    sides: tuple[Side, Side],
    dtype: np.dtype,
    labels: str | None = None,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    archive: Path | None = None,
) -> Scene:
    """The first scene in which both return one number. Raises `UsageError` where there is none, with the error of the first."""
    if labels is not None and labels not in LABELS:
        raise UsageError(f"--labels {labels} is not known; give {', '.join(LABELS[:-1])} or {LABELS[-1]}")
    names, others = (pair.parameters(side) for side in sides)
    if archive is not None:
        return _from_archive(sides, names, archive, dtype)
    if len(names) != len(others):
        counts = " and ".join(
            f"{side.name} {len(parameter_names)} ({', '.join(parameter_names)})"
            for side, parameter_names in zip(sides, (names, others), strict=True)
        )
        raise UsageError(f"the two losses take different numbers of arguments: {counts}")
    refused: list[UsageError] = []
    for candidate in _candidates(names, others, labels, shape, classes):
        try:
            for side in sides:
                check(side, candidate, dtype)
            return candidate
        except UsageError as error:
            refused.append(error)
            if isinstance(error, NotOneNumber):
                break
    clearest = [error for error in refused if isinstance(error, NotOneNumber)] or refused
    raise UsageError(str(clearest[0]))


def check(side: Side, scene: Scene, dtype: np.dtype) -> None:
    """Trace a function in a scene. Raises `UsageError` where it does not fit, `NotOneNumber` where it does and returns no number."""
    args = scene.cast(example(scene), dtype)
    _, returned = traceable.trace(Traceable(side.name, side.function, tuple(jax.ShapeDtypeStruct(arg.shape, arg.dtype) for arg in args)))
    if getattr(returned, "shape", None) != () or not jnp.issubdtype(returned.dtype, jnp.floating):
        kinds = [f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for leaf in jax.tree.leaves(returned)]
        raise NotOneNumber(
            f"{side.name} returns {', '.join(kinds) or 'nothing'} for `{scene.names[0]}` of shape {list(scene.shape)}, "
            "and a loss returns one floating number: take its mean, or give a smaller --shape"
        )


def _candidates(
    names: tuple[str, ...], others: tuple[str, ...], labels: str | None, shape: tuple[int, ...] | None, classes: int | None
) -> Iterator[Scene]:
    """The scenes to try, the likeliest first. `others` are the second function's names."""
    shape = shape if shape is not None else (SHAPE[0], classes) if classes else SHAPE
    # Shapes of one example and of one number are tried too: a function that does not trace on a batch may be meant for these.
    shapes = [shape, *([shape[-1:], ()] if shape == SHAPE or classes else [])]
    parameter_roles = roles(names, labels)
    if "labels" not in parameter_roles:
        parameter_roles = roles(others, labels)
    kinds = kinds_of_labels(names, others, parameter_roles) if labels is None else [labels]
    for swept in dict.fromkeys(shapes):
        for kind in kinds:
            yield Scene(
                names,
                parameter_roles,
                tuple(_shape(role, kind, swept) for role in parameter_roles),
                kind,
                classes or (swept[-1] if swept else 1),
            )


def _shape(role: Role, kind: str, swept: tuple[int, ...]) -> tuple[int, ...]:
    return swept[:-1] if role == "labels" and kind == "classes" else swept


def _from_archive(sides: tuple[Side, Side], names: tuple[str, ...], archive: Path, dtype: np.dtype) -> Scene:
    """The scene of an archive's arrays, the first of which is swept. Raises `UsageError` where they do not fit."""
    archive_arguments = arguments.from_archive(sides[0].function, archive)
    arrays = [np.asarray(arg) for arg in archive_arguments if not isinstance(arg, dict)]
    if len(arrays) != len(archive_arguments) or not arrays:
        raise UsageError(f"{archive} should hold one array for each argument of {sides[0].name}({', '.join(names)})")
    swept, *others = arrays
    if not nonfinite.is_inexact(swept) or np.iscomplexobj(swept):
        raise UsageError(f"the first array of {archive} is swept, and should be of floats; it is of {swept.dtype}")
    scene = Scene(
        names=tuple(names[: len(arrays)]),
        roles=("swept", *("fixed" for _ in others)),
        shapes=tuple(array.shape for array in arrays),
        labels="given",
        classes=swept.shape[-1] if swept.ndim else 1,
        given=tuple(arrays),
    )
    for side in sides:
        check(side, scene, dtype)
    return scene
