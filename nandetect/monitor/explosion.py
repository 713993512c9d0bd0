"""The exploding-gradient report as a record: which layer's gradient grew first, when and by how much. No JAX here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nandetect.history import History
from nandetect.monitor.rules import judge
from nandetect.monitor.rules.columns import Course
from nandetect.monitor.rules.finite import bad_gradient, broken_points
from nandetect.records import Finding

# Rules for whose findings an explosion is drawn, the likeliest root first.
RULES = (
    "init-scale",
    "inputs-unscaled",
    "exploding-gradient",
    "learning-rate-high",
    "divergence",
    "overflow-headroom",
    "non-finite",
)
# Growth of a layer's gradient, over its usual norm, from which on the layer counts as grown.
TENFOLD = 10.0
_EARLY_POINTS = 20
# Rules that speak of an explosion only where they are more than a note.
_UNLESS_NOTE = ("learning-rate-high", "divergence")
_MOST_LAYERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One layer's gradient: its usual norm, its largest (floats), and the step from which on it was ten times the usual one."""

    layer: str
    usual: float
    largest: float
    step: int | None = None

    @property
    def factor(self) -> float:
        return self.largest / self.usual if self.usual else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explosion:
    """How the gradient exploded.

    `growths` are of the kernels, from the input to the output; `first` is the one that grew first, None where none grew: the gradient was
    large from the first step on. `steps` are the first steps of the picture's columns, and `until` the last one's last; `levels` has a row
    for each kernel and the log10 of the largest gradient norm of each column: None where none was measured, inf where it was not finite.
    """

    growths: tuple[Growth, ...]
    first: Growth | None
    steps: tuple[int, ...]
    until: int
    levels: tuple[tuple[float | None, ...], ...]
    broken: int | None = None
    cause: Finding


def exploded(findings: Sequence[Finding]) -> bool:
    """Whether these findings are of a gradient that exploded, so that there is something to draw."""
    return any(
        finding.rule == "exploding-gradient" or (finding.rule in _UNLESS_NOTE and finding.severity != "note") for finding in findings
    )


def explosion(history: History, findings: Sequence[Finding] | None = None, columns: int = 48) -> Explosion | None:
    """The report of a run whose gradient exploded, None of any other. `findings` are those of `judge`, where the caller has them."""
    with np.errstate(all="ignore"):
        return _explosion(history, judge(history) if findings is None else findings, columns)


def _explosion(history: History, findings: Sequence[Finding], columns: int) -> Explosion | None:
    exploding = sorted((finding for finding in findings if finding.rule in RULES), key=lambda finding: RULES.index(finding.rule))
    loud = [finding for finding in exploding if finding.severity != "note"]
    course = Course(history)
    indices = _spread([kernel.leaf for kernel in course.kernels if course.trained[kernel.leaf]])
    if not loud or not indices:
        return None
    broken = np.flatnonzero(broken_points(course) & bad_gradient(course))
    norms = np.asarray(course.layer("gradient")[:, indices], np.float64)
    nonfinite = np.nan_to_num(course.layer("gradient_nonfinite")[:, indices]) > 0
    norms[nonfinite] = np.inf
    end = int(broken[0]) if broken.size else course.points
    growths = tuple(_growth(course, index, norms[: max(end, 1), column]) for column, index in enumerate(indices))
    grown = [growth for growth in growths if growth.step is not None]
    if not grown and loud[0].rule not in ("init-scale", "inputs-unscaled", "exploding-gradient"):
        return None
    # Layers that grew in the same step: the one that grew most comes first.
    first = min(grown, key=lambda growth: (growth.step, -growth.factor), default=None)
    rows = _window(course, first, end)
    edges = np.unique(np.linspace(rows.start, rows.stop, min(columns, rows.stop - rows.start) + 1).astype(int))
    return Explosion(
        growths=growths,
        first=first,
        steps=tuple(int(course.steps[edge]) for edge in edges[:-1]),
        until=int(course.steps[edges[-1] - 1]),
        levels=tuple(tuple(_level(norms[a:b, column]) for a, b in itertools.pairwise(edges)) for column in range(len(indices))),
        broken=int(course.steps[broken[0]]) if broken.size else None,
        cause=loud[0],
    )


def _spread(indices: list[int]) -> list[int]:
    """At most 16 layers, evenly over the depth."""
    if len(indices) <= _MOST_LAYERS:
        return indices
    return [indices[round(row * (len(indices) - 1) / (_MOST_LAYERS - 1))] for row in range(_MOST_LAYERS)]


def _growth(course: Course, index: int, norms: np.ndarray) -> Growth:
    """The growth of a layer over its usual norm: the median of its first norms, or the very first where it grew at once.

    `norms` are finite or NaN.
    """
    path = course.leaves[index].path
    known = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    if not known.size:
        return Growth(layer=path, usual=0.0, largest=0.0)
    values = norms[known]
    early = values[:_EARLY_POINTS]
    usual = float(early[0] if (early > TENFOLD * early[0]).any() else np.median(early))
    over = values > TENFOLD * usual
    step = int(course.steps[known[int(np.argmax(over))]]) if over.any() else None
    return Growth(layer=path, usual=usual, largest=float(values.max()), step=step)


def _window(course: Course, first: Growth | None, end: int) -> slice:
    """The points to draw: all, or those around the growth where it takes a small part of the run only."""
    end = min(end + 3, course.points)
    if first is None:
        return slice(0, end)
    start = int(np.searchsorted(course.steps, first.step or 0))
    peak = int(np.nanargmax(np.where(np.isfinite(course.series("gradient")[:end]), course.series("gradient")[:end], -1)))
    length = max(abs(peak - start), 6)
    return slice(max(start - 3 * length, 0), min(max(peak, start) + 2 * length, end))


def _level(norms: np.ndarray) -> float | None:
    known = norms[~np.isnan(norms)]
    if not known.size:
        return None
    largest = float(known.max())
    return float(np.log10(max(largest, 1e-300))) if np.isfinite(largest) else float("inf")
