"""Reading late what steps measured: rows from the device in, parts of a history out."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nandetect.history import History, Leaf
from nandetect.monitor.points import Points, history
from nandetect.monitor.vitals import LAYERS, LEAST, MISSING, WHOLE, is_full

# Rows that make a part of the history, and the seconds after which fewer do.
_PART, _TICK = 64, 0.1
# After a row that was not finite, everything is measured of so many steps.
_ALERT = 20
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
    return not isinstance(row.numbers, jax.Array) or row.numbers.is_ready()


def _kind(row: Row) -> Any:
    return row.leaves, row.names, tuple(row.here)


def _part(rows: list[Row]) -> History:
    """Rows of one kind as a part of the history, in the order of their steps."""
    first, names = rows[0], rows[0].names
    numbers = [np.atleast_2d(row.numbers) for row in rows]
    steps = np.concatenate([np.atleast_1d(np.asarray(row.steps)) for row in rows]).astype(np.int64)
    metrics = {name: np.concatenate([one[:, at] for one in numbers]) for at, name in enumerate(names)}
    for name in first.here:
        metrics[name] = np.concatenate([np.broadcast_to(row.here[name], len(one)) for row, one in zip(rows, numbers, strict=True)])
    # A metric that was given is never NaN: that stands for one that was not.
    metrics = {
        name: np.where(np.isnan(column) | (column == MISSING), np.inf, column).astype(np.float32) for name, column in metrics.items()
    }
    vitals = np.concatenate([_vitals(one[:, len(names) :], len(first.leaves)) for one in numbers])
    order = np.argsort(steps, kind="stable")
    return history(first.leaves, steps[order], {name: column[order] for name, column in metrics.items()}, vitals[order])


def _vitals(numbers: np.ndarray, leaves: int) -> np.ndarray:
    """Those of a light measure in the places that they have in a full one."""
    if not leaves or numbers.shape[1] != leaves:
        return numbers
    vitals = np.full((len(numbers), len(WHOLE) + len(LAYERS) * leaves), MISSING, np.float32)
    columns = vitals[:, len(WHOLE) :].reshape(len(numbers), len(LAYERS), leaves)
    names, given = list(LAYERS), numbers != MISSING
    columns[:, names.index("gradient")] = np.where(numbers > LEAST, np.sqrt(np.abs(numbers)), MISSING)
    columns[:, names.index("gradient_nonfinite")] = np.where(given, numbers == -1, MISSING)
    return vitals
