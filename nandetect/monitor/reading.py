"""The reader of what steps measured: rows from the device go in, and parts of a history come out some steps later."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping

import numpy as np

from nandetect.annotations import Array
from nandetect.history import History, Leaf
from nandetect.monitor.in_step import Metric
from nandetect.monitor.points import Points, history
from nandetect.monitor.vitals import LAYERS, LEAST, MISSING, WHOLE, is_full

# Rows that make a part of the history, and the seconds after which fewer rows make one.
_PART, _TICK = 64, 0.1
# Steps after a row that was not finite of which everything is measured.
_ALERT = 20
# The columns that a light measure fills.
_LIGHT = ("gradient", "gradient_nonfinite")
Sink = Callable[[History], object]


class Row:
    """What was measured of a step, or of T stacked ones: their `steps`, and float32 `numbers` with the metrics `names` and then vitals.

    The vitals are those of `in_step.light` or `in_step.full`. `on_host` are metrics that the host had already. `steps` is None until a row
    that a running program sent has been numbered.
    """

    __slots__ = ("leaves", "names", "numbers", "on_host", "steps")

    def __init__(
        self,
        steps: Metric | None,
        leaves: tuple[Leaf, ...],
        names: tuple[str, ...],
        numbers: Array,
        on_host: Mapping[str, Metric] | None = None,
    ):
        self.steps, self.leaves, self.names, self.numbers, self.on_host = steps, leaves, names, numbers, on_host or {}


class Reader:
    """Keeps rows until the device has computed them, and reads them then.

    Entering a row waits for the oldest ones only where more than `late` are under way. `sinks` are called with each part that was read, in
    order. Entering is safe from any thread; a thread that runs a program uses `leave`.
    """

    def __init__(self, late: int = 256, *sinks: Sink):
        self.sinks: list[Sink] = [*sinks]
        self._late = late
        self._waiting: deque[Row] = deque()
        self._read: list[Row] = []
        self._points = Points()
        self._lock = threading.RLock()
        self._last_tell = time.perf_counter()
        self._alert = 0

    def wants_all(self, step: int) -> bool:
        """Whether everything is to be measured of the next step: as planned, or because something was not finite lately."""
        self._alert -= 1
        return self._alert >= 0 or is_full(step)

    def leave(self, row: Row) -> None:
        """Enter a row and read none: a running program calls this, and reading would make it wait for itself."""
        self._waiting.append(row)

    def enter(self, row: Row) -> None:
        """Enter a row, and read the rows that are ready."""
        self._waiting.append(row)
        # A thread that holds the lock is reading already, and reads this row too.
        if self._lock.acquire(blocking=False):
            try:
                while self._waiting and (len(self._waiting) > self._late or _is_ready(self._waiting[0])):
                    self._read_one()
                if len(self._read) >= _PART or (self._read and time.perf_counter() - self._last_tell > _TICK):
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
        # `float()` of a JAX array takes twenty times as long as `np.asarray`.
        row.numbers = np.asarray(row.numbers)
        self._read.append(row)

    def _tell(self) -> None:
        """Make parts of the rows that were read, one of each stretch of rows of one kind, and hand them to the sinks."""
        rows, self._read, self._last_tell = self._read, [], time.perf_counter()
        for _, same_kind in itertools.groupby(rows, key=_kind):
            part = _part(list(same_kind))
            if (np.nan_to_num(part.layers["gradient_nonfinite"]) > 0).any():
                self._alert = _ALERT
            self._points.add(part)
            for sink in self.sinks:
                sink(part)


def _is_ready(row: Row) -> bool:
    is_ready = getattr(row.numbers, "is_ready", None)
    return is_ready is None or is_ready()


def _kind(row: Row) -> Hashable:
    """Rows of one kind make one part: the same leaves and metrics, and all stacked or none."""
    return row.leaves, row.names, tuple(row.on_host), row.numbers.ndim


def _part(rows: list[Row]) -> History:
    """Rows of one kind as a part of the history, in the order of their steps."""
    first, count = rows[0], len(rows[0].names)
    lengths = [1 if row.numbers.ndim == 1 else len(row.numbers) for row in rows]
    steps = np.concatenate([np.atleast_1d(np.asarray(row.steps)) for row in rows]).astype(np.int64)
    numbers = _vitals([np.asarray(row.numbers) for row in rows], count, len(first.leaves))
    metrics = {name: numbers[:, index] for index, name in enumerate(first.names)}
    for name in first.on_host:
        columns = [np.broadcast_to(np.asarray(row.on_host[name]), length) for row, length in zip(rows, lengths, strict=True)]
        metrics[name] = np.concatenate(columns)
    order = np.argsort(steps, kind="stable")
    metrics = {name: _as_given(column[order]) for name, column in metrics.items()}
    return history(first.leaves, steps[order], metrics, numbers[order, count:])


def _vitals(rows: list[np.ndarray], metrics: int, leaves: int) -> np.ndarray:
    """All rows in one array; the numbers of a light measure stand in the columns where a full measure has them."""
    width = metrics + len(WHOLE) + len(LAYERS) * leaves
    if all(row.shape[-1] == width for row in rows):
        return np.concatenate([np.atleast_2d(row) for row in rows])
    whole = np.full((len(rows), width), MISSING, np.float32)
    is_light = np.array([row.shape[-1] != width for row in rows])
    light = np.stack([row for row in rows if row.shape[-1] != width])
    if not is_light.all():
        whole[~is_light] = np.stack([row for row in rows if row.shape[-1] == width])
    squares = light[:, metrics:]
    norm, nonfinite = (metrics + len(WHOLE) + list(LAYERS).index(name) * leaves for name in _LIGHT)
    whole[is_light, :metrics] = light[:, :metrics]
    whole[is_light, norm : norm + leaves] = np.where(squares > LEAST, np.sqrt(np.abs(squares)), MISSING)
    whole[is_light, nonfinite : nonfinite + leaves] = np.where(squares != MISSING, squares == -1, MISSING)
    return whole


def _as_given(metric: np.ndarray) -> np.ndarray:
    """The metric with inf in place of NaN: in a history NaN says that a metric was not given."""
    return np.where(np.isnan(metric) | (metric == MISSING), np.inf, metric).astype(np.float32)
