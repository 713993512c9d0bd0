"""Reading late what steps measured: rows from the device in, parts of a history out."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from nandetect.history import History, Leaf
from nandetect.monitor.points import Points, history
from nandetect.monitor.vitals import LAYERS, LEAST, MISSING, WHOLE, is_full

# Rows that make a part of the history, and the seconds after which fewer do.
_PART, _TICK = 64, 0.1
# After a row that was not finite, everything is measured of so many steps.
_ALERT = 20
# What a light measure says.
_LIGHT = ("gradient", "gradient_nonfinite")
Sink = Callable[[History], object]


class Row:
    """What was measured of a step, or of T stacked ones: their `steps`, and float32 `numbers` with the metrics `names` and then vitals.

    The vitals are those of `measure.light` or `measure.full`. `here` are metrics that the host had already.
    """

    __slots__ = ("here", "leaves", "names", "numbers", "steps")

    def __init__(self, steps: Any, leaves: tuple[Leaf, ...], names: tuple[str, ...], numbers: Any, here: dict[str, Any]):
        self.steps, self.leaves, self.names, self.numbers, self.here = steps, leaves, names, numbers, here


class Reader:
    """Rows on their way. At most `late` of them are waited for by whoever enters the next.

    `sinks` are called with each part that was read, in order. Entering is safe from any thread, also from one that runs a program.
    """

    def __init__(self, late: int = 256, *sinks: Sink):
        self.sinks: list[Sink] = [*sinks]
        self._late = late
        self._waiting: deque[Row] = deque()
        self._read: list[Row] = []
        self._points = Points()
        self._lock = threading.RLock()
        self._told = time.perf_counter()
        self._alert = 0

    def wants_all(self, step: int) -> bool:
        """Whether everything should be measured of the step that comes now: as planned, or since something was not finite lately."""
        self._alert -= 1
        return self._alert >= 0 or is_full(step)

    def leave(self, row: Row) -> None:
        """Enter a row and read nothing: a running program calls this, and may not wait for itself."""
        self._waiting.append(row)

    def enter(self, row: Row) -> None:
        """Enter a row; read those that are ready."""
        self._waiting.append(row)
        # Whoever else is reading reads on.
        if self._lock.acquire(blocking=False):
            try:
                while self._waiting and (len(self._waiting) > self._late or _is_ready(self._waiting[0])):
                    self._read_one()
                if len(self._read) >= _PART or (self._read and time.perf_counter() - self._told > _TICK):
                    self._tell()
            finally:
                self._lock.release()

    def settle(self) -> None:
        """Read all that was entered. Waits for the device."""
        with self._lock:
            while self._waiting:
                self._read_one()
            self._tell()

    def history(self) -> History:
        """All that was read so far."""
        with self._lock:
            return self._points.history()

    def _read_one(self) -> None:
        row = self._waiting.popleft()
        # np.asarray: float() of a JAX array takes twenty times as long.
        row.numbers = np.asarray(row.numbers)
        self._read.append(row)

    def _tell(self) -> None:
        """Make a part of what was read."""
        rows, self._read, self._told = self._read, [], time.perf_counter()
        for _, alike in itertools.groupby(rows, key=_kind):
            part = _part(list(alike))
            if (np.nan_to_num(part.layers["gradient_nonfinite"]) > 0).any():
                self._alert = _ALERT
            self._points.add(part)
            for sink in self.sinks:
                sink(part)


def _is_ready(row: Row) -> bool:
    return not hasattr(row.numbers, "is_ready") or row.numbers.is_ready()


def _kind(row: Row) -> Any:
    return row.leaves, row.names, tuple(row.here), row.numbers.ndim


def _part(rows: list[Row]) -> History:
    """Rows of one kind as a part of the history, in the order of their steps."""
    first, count = rows[0], len(rows[0].names)
    lengths = [1 if row.numbers.ndim == 1 else len(row.numbers) for row in rows]
    steps = np.concatenate([np.atleast_1d(row.steps) for row in rows]).astype(np.int64)
    numbers = _vitals([row.numbers for row in rows], count, len(first.leaves))
    metrics = {name: numbers[:, at] for at, name in enumerate(first.names)}
    for name in first.here:
        metrics[name] = np.concatenate([np.broadcast_to(row.here[name], length) for row, length in zip(rows, lengths, strict=True)])
    order = np.argsort(steps, kind="stable")
    metrics = {name: _given(column[order]) for name, column in metrics.items()}
    return history(first.leaves, steps[order], metrics, numbers[order, count:])


def _vitals(rows: list[np.ndarray], metrics: int, leaves: int) -> np.ndarray:
    """All rows below one another, what a light measure gave in the places that it has in a full one."""
    width = metrics + len(WHOLE) + len(LAYERS) * leaves
    if all(row.shape[-1] == width for row in rows):
        return np.concatenate([np.atleast_2d(row) for row in rows])
    whole = np.full((len(rows), width), MISSING, np.float32)
    is_light = np.array([row.shape[-1] != width for row in rows])
    light = np.stack([row for row in rows if row.shape[-1] != width])
    if not is_light.all():
        whole[~is_light] = np.stack([row for row in rows if row.shape[-1] == width])
    squares, places = light[:, metrics:], [metrics + len(WHOLE) + list(LAYERS).index(name) * leaves for name in _LIGHT]
    whole[is_light, :metrics] = light[:, :metrics]
    whole[is_light, places[0] : places[0] + leaves] = np.where(squares > LEAST, np.sqrt(np.abs(squares)), MISSING)
    whole[is_light, places[1] : places[1] + leaves] = np.where(squares != MISSING, squares == -1, MISSING)
    return whole


def _given(metric: np.ndarray) -> np.ndarray:
    """A metric that was given and is not a number is infinite in a history: NaN stands there for what was not given."""
    return np.where(np.isnan(metric) | (metric == MISSING), np.inf, metric).astype(np.float32)
