"""A run as the rules see it: its columns by name, the stretches of points that rules compare, and what is derived once for all rules."""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np

from nandetect.history import History
from nandetect.monitor.rules import layers
from nandetect.monitor.rules.layers import KernelLeaf

# Points at the beginning of a run from which its start is read, and the most at its end that count as recent.
_START = 10
_RECENT = 400
# Pairs of consecutive steps that `slope_kept` needs: the sum over three or four of them may be anything.
_PAIRS = 8
_LARGEST = float(np.finfo(np.float32).max)


class Course:
    """A history with what several rules need of it. Arrays are float64[T] or float32[T, L]; NaN where nothing was measured.

    `broken` is true where this history ends before a step of the run that was not finite.
    """

    def __init__(self, history: History, broken: bool = False):
        self.history, self.broken = history, broken
        self.leaves = history.leaves
        self.steps = history.steps
        self.points = len(history)
        self._layers: dict[str, np.ndarray] = {}

    def series(self, name: str) -> np.ndarray:
        """A series of the run, NaN throughout where it was not given."""
        values = self.history.series.get(name)
        return np.full(self.points, np.nan) if values is None else np.asarray(values, np.float64)

    def layer(self, name: str) -> np.ndarray:
        """A measure of all leaves, NaN throughout where it was not given; never infinite, as the norm of finite elements is not."""
        if name not in self._layers:
            values = self.history.layers.get(name)
            shape = self.points, len(self.leaves)
            self._layers[name] = np.full(shape, np.nan, np.float32) if values is None else np.clip(values, -_LARGEST, _LARGEST)
        return self._layers[name]

    @functools.cached_property
    def loss(self) -> np.ndarray:
        return self.series("loss")

    @functools.cached_property
    def kernels(self) -> tuple[KernelLeaf, ...]:
        return layers.kernels(self.leaves)

    @property
    def start(self) -> slice:
        """The first points."""
        return slice(0, min(_START, self.points))

    @property
    def recent(self) -> slice:
        """The last quarter of the points, 20 of them at least and 400 at most."""
        return slice(max(self.points - min(max(self.points // 4, 20), _RECENT), 0), self.points)

    @functools.cached_property
    def full(self) -> np.ndarray:
        """The points at which everything was measured (int64): of most steps a Monitor measures the norms of the gradients only."""
        return np.flatnonzero(np.isfinite(self.layer("gradient_zero")).any(1) | np.isfinite(self.layer("weight")).any(1))

    @property
    def late(self) -> np.ndarray:
        """The last quarter of the `full` points, 8 of them at least."""
        return self.full[-max(len(self.full) // 4, 8) :]

    @functools.cached_property
    def trained(self) -> np.ndarray:
        """bool[L]: the leaves for which gradients were given."""
        return np.any(np.isfinite(self.layer("gradient")), 0) if self.points else np.zeros(len(self.leaves), bool)

    @functools.cached_property
    def first_loss(self) -> float:
        """The loss before much was learned: the median of the first three finite ones."""
        finite = self.loss[np.isfinite(self.loss)]
        return float(np.median(finite[:3])) if finite.size else math.nan

    @functools.cached_property
    def last_loss(self) -> float:
        """The loss that the run has reached: the median of its recent points."""
        return middle(self.loss[self.recent])

    @functools.cached_property
    def chance(self) -> float:
        """The cross-entropy of a guess among the classes; of the counts that the layers' widths allow, the one nearest to the last loss."""
        levels = [math.log(count) for count in layers.classes(self.leaves)]
        return min(levels, key=lambda level: abs(level - self.last_loss), default=math.nan)

    @functools.cached_property
    def ratio(self) -> np.ndarray:
        """float64[T]: the norm of the update over that of the parameters, all leaves together."""
        return divided(self.series("update"), self.series("weight"))

    def slope_kept(self, window: slice) -> float:
        """The part of the loss's slope along an update left at the end of the step: 1 for a tiny step, 0 for one to the lowest point.

        It is the sum of `along_before` over that of `along` one step earlier, in a stretch of points; below 0 where the loss rises again.
        The two are of different batches, so that a slope which only one batch has counts as lost: with random labels it is 0. On a
        quadratic it is 1 - 2/headroom (arXiv 2601.16979).
        """
        rows = np.arange(self.points)[window]
        rows = rows[(rows > 0) & (self.steps[rows] == self.steps[rows - 1] + 1)]
        before, along = self.series("along_before")[rows], self.series("along")[rows - 1]
        both = np.isfinite(before) & np.isfinite(along)
        total = along[both].sum()
        return float(before[both].sum() / total) if both.sum() >= _PAIRS and total else math.nan

    def input_scale(self, kernel: KernelLeaf, window: slice) -> float:
        """The root mean square of what a layer is given, from its gradients alone.

        A dense layer's kernel has the gradient sum(x d) and its bias sum(d), over the samples: where the samples' d are independent of
        their x, the ratio of the two norms is the norm of x.
        """
        if kernel.bias is None:
            return math.nan
        gradient = self.layer("gradient")[window]
        return middle(divided(gradient[:, kernel.leaf], gradient[:, kernel.bias])) / math.sqrt(kernel.inputs)

    def scale(self, kernel: KernelLeaf, window: slice) -> float:
        """The root mean square of a kernel's weights times the root of its fan-in: 1 is LeCun's initial scale, 1.41 He's."""
        norm = middle(self.layer("weight")[window, kernel.leaf])
        return norm / math.sqrt(self.leaves[kernel.leaf].size) * math.sqrt(kernel.inputs)


def divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, NaN where it has none."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = np.asarray(above, np.float64) / np.asarray(below, np.float64)
    return np.where(np.isfinite(quotient), quotient, np.nan)


def middle(values: np.ndarray, axis: int | None = None) -> float:
    """The median of the finite values, NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(np.where(np.isfinite(values), values, np.nan), axis=axis)  # pyright: ignore[reportReturnType]
