"""A history at the resolution of a picture: curves and a map of the layers over time, ready to be drawn. No JAX here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nandetect.history import History
from nandetect.render.heat_map import NOT_FINITE, ZERO

# A series whose largest value is so many times its smallest is seen on a logarithmic axis.
_LOG_FROM = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A series in columns of equal numbers of steps, as shares of the way from `bottom` to `top`; None where a column has no value.

    `low` and `high` are the extremes of a column. `latest` is the value itself: the last that was measured.
    """

    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    bottom: float
    top: float
    latest: float
    log: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """The largest gradient of each row of leaves in columns of equal numbers of steps, as levels of `heat_map`, by their logarithms.

    A row is one leaf, or some that follow one another where there are more leaves than rows: it bears the name of the first.
    `latest` are the gradients of the last point, `bottom` and `top` what the levels 0 and 1 stand for.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[float | None, ...], ...]
    latest: tuple[float, ...]
    bottom: float
    top: float


def curve(history: History, name: str, columns: int, limits: tuple[float, float] | None = None) -> Curve | None:
    """A series of the history, on the axis of these limits or on one that fits; None where it was never measured."""
    values = history.series.get(name)
    if values is None or not np.isfinite(values).any():
        return None
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    bottom, top = limits or (float(finite.min()), float(finite.max()))
    # Values of 0 lie on the floor of a logarithmic axis.
    least = float(finite[finite > 0].min(initial=np.inf))
    log = limits is None and bottom >= 0 and _LOG_FROM * least < top
    bottom = least if log else bottom
    heights = _shares(values, bottom, top, log)
    cuts = _cuts(history.steps, columns)
    return Curve(
        low=_numbers(_extreme(np.fmin, np.where(np.isfinite(values), heights, np.nan), cuts, columns)),
        high=_numbers(_extreme(np.fmax, np.where(np.isfinite(values), heights, np.nan), cuts, columns)),
        bottom=bottom,
        top=top,
        # NaN in the loss is the loss; in the other series it says that nothing was measured at that step.
        latest=float(values[-1] if name == "loss" else finite[-1]),
        log=log,
    )


def gradient_map(history: History, rows: int, columns: int) -> Map | None:
    """Where in the layers and when the gradient was large; None where no layers were measured."""
    gradients = history.layers.get("gradient")
    if gradients is None or not gradients.size or not np.isfinite(gradients).any():
        return None
    groups = np.array_split(np.arange(len(history.leaves)), min(rows, len(history.leaves)))
    tall = _rows(np.asarray(gradients, np.float64), groups)
    not_finite = _rows(np.asarray(history.layers.get("gradient_nonfinite", np.zeros_like(gradients)), np.float64), groups) > 0
    positive = tall[np.isfinite(tall) & (tall > 0)]
    bottom, top = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 1.0)
    cuts = _cuts(history.steps, columns)
    levels = []
    for row, bad in zip(tall, not_finite, strict=True):
        largest = _extreme(np.fmax, row, cuts, columns)
        bads = _extreme(np.fmax, bad.astype(np.float64), cuts, columns)
        shares = np.where(largest > 0, _shares(np.maximum(largest, bottom), bottom, top, log=True), ZERO)
        levels.append(_numbers(np.where(bads > 0, NOT_FINITE, np.where(np.isnan(largest), np.nan, shares))))
    return Map(
        names=tuple(_name(history, group) for group in groups),
        levels=tuple(levels),
        latest=tuple(float(value) for value in tall[:, -1]),
        bottom=bottom,
        top=top,
    )


def _name(history: History, group: np.ndarray) -> str:
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return history.leaves[group[0]].path + more


def _rows(values: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.fmax.reduce(values[:, group], axis=1) for group in groups])


def _cuts(steps: np.ndarray, columns: int) -> np.ndarray:
    """The column of each point: the steps from the least to the largest in equal parts."""
    least = int(steps.min())
    return (steps - least) * columns // max(int(steps.max()) - least + 1, columns)


def _extreme(which: np.ufunc, values: np.ndarray, cuts: np.ndarray, columns: int) -> np.ndarray:
    """The extreme of each column's values, by `fmin` or `fmax`; NaN where a column has none."""
    extremes = np.full(columns, np.nan)
    which.at(extremes, cuts, values)
    return extremes


def _shares(values: np.ndarray, bottom: float, top: float, log: bool) -> np.ndarray:
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(values)
        bottom, top = float(np.log(bottom)), float(np.log(top))
    if top <= bottom:
        return np.where(np.isfinite(values), 0.5, np.nan)
    return np.clip((values - bottom) / (top - bottom), 0.0, 1.0)


def _numbers(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)
