"""The comparison: two functions, one scene, several dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from nandetect.compare import conclusions, pair
from nandetect.compare.judgement import Pairing, judgement
from nandetect.compare.pair import Side
from nandetect.compare.results import Comparison, Judgement
from nandetect.compare.scene import scene
from nandetect.compare.timing import timing
from nandetect.compare.training import training
from nandetect.errors import UsageError

# Numbers that the swept array may have: exact arithmetic takes about a tenth of a millisecond for each, hundreds of times over.
MOST = 1024
DTYPES = ("float32", "bfloat16", "float16", "float64")
SURVEYED = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """What to compare and how. Raises `UsageError` for settings that mean nothing."""

    first: str
    second: str
    labels: str | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    archive: Path | None = None
    dtype: str = "float32"
    max_ulp: float = 16.0
    seed: int = 0
    train: bool = False
    x64: bool = False
    timed: bool = True
    surveyed: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype} is not known; give {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
        if self.dtype == "float64" and not self.x64 and jnp.result_type(float) != jnp.float64:
            raise UsageError("--dtype float64 needs --x64: without it JAX computes in float32")
        if not self.max_ulp > 0:
            raise UsageError(f"--max-ulp {self.max_ulp:g}: give a number above 0")
        if self.archive is not None and (self.shape is not None or self.classes is not None or self.labels is not None):
            raise UsageError("--args gives the arguments: leave --shape, --classes and --labels out")
        if self.classes is not None and (self.classes < 1 or (self.shape and self.shape[-1] != self.classes)):
            raise UsageError(f"--classes {self.classes}: give the last of the sizes of --shape, or leave one of the two out")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: give 0 to {2**32 - 1}")
        if self.shape is not None and any(size < 1 for size in self.shape):
            raise UsageError(f"--shape {','.join(map(str, self.shape))}: give sizes of 1 or more")


def compare(settings: CompareSettings) -> Comparison:
    """Compare both functions with the truth in the dtype of the settings, and survey them in the other dtypes."""
    with _x64(settings.x64):
        return between(pair.load(settings.first, settings.second), settings)


@contextmanager
def _x64(wanted: bool) -> Iterator[None]:
    before = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_x64", wanted or before)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def between(sides: tuple[Side, Side], settings: CompareSettings) -> Comparison:
    """`compare` of two functions that are loaded already."""
    common_scene = scene(sides, jnp.dtype(settings.dtype), settings.labels, settings.shape, settings.classes, settings.archive)
    if common_scene.size > MOST:
        raise UsageError(
            f"`{common_scene.names[0]}` of shape {list(common_scene.shape)} has {common_scene.size:,} numbers: give {MOST:,} or fewer"
        )
    pairings = [Pairing(sides, common_scene, dtype, settings.seed) for dtype in [settings.dtype, *_others(settings)]]
    first, second = (judgement(which, pairings, settings.max_ulp) for which in range(2))
    trained = training(sides, common_scene, settings.seed, settings.dtype) if settings.train else None
    timed = timing(sides, common_scene, jnp.dtype(settings.dtype)) if settings.timed else None
    same = pairings[0].same
    return Comparison(
        verdict=conclusions.sentence((first, second), same, timed, settings.max_ulp),
        names=(first.name, second.name),
        dtype=settings.dtype,
        max_ulp=settings.max_ulp,
        labels=common_scene.labels,
        shapes=common_scene.shapes,
        parameters=common_scene.names,
        sameness=same,
        judged=(first, second),
        timing=timed,
        training=trained,
        notes=tuple(_notes((first, second))),
        findings=conclusions.findings((first, second), same, settings.max_ulp),
    )


def _others(settings: CompareSettings) -> list[str]:
    """The dtypes that are surveyed besides the one of the settings."""
    return [dtype for dtype in SURVEYED if dtype != settings.dtype] if settings.surveyed else []


def _notes(judgements: tuple[Judgement, Judgement]) -> list[str]:
    return [
        f"no exact rule is known for {', '.join(judgement.unsupported)} in `{judgement.name}`: float64 stands in for its truth"
        for judgement in judgements
        if not judgement.exact
    ]
