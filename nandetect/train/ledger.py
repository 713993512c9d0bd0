"""The ledger of a run: the numbers read from the device so far, and when the run reached its goals."""

from __future__ import annotations

import time
from collections import deque

import jax
import numpy as np

from nandetect.history import History, Leaf
from nandetect.monitor.reading import Reader, Row, Sink
from nandetect.monitor.vitals import is_full
from nandetect.train.settings import Reached, Snapshot

# Steps whose vitals may be under way on the device before the oldest one's are waited for.
_LATE = 16
# Steps that are kept after they were read, since a guard finds a fault some steps late and asks how the run stood before it.
_KEPT = 128
# Seconds between two updates of what is shown.
_TICK = 0.1


class Ledger:
    """Takes the vitals of each step and gives the numbers of the run. The first step compiles: `seconds` are counted from its end."""

    def __init__(self, steps_per_epoch: int, batch_size: int, leaves: tuple[Leaf, ...], *sinks: Sink):
        self.entered = 0
        self.overfit: Reached | None = None
        # The epoch, counted from 1, whose steps had the lowest mean loss, and that loss.
        self.best: tuple[int, float] | None = None
        self.first_bad: int | None = None
        self.compile_seconds: float | None = None
        self._steps_per_epoch, self._batch_size, self._leaves = steps_per_epoch, batch_size, leaves
        self._reader = Reader(_LATE, self._note, *sinks)
        self._parts: deque[History] = deque()
        self._read = 0
        self._wrong_in_epoch, self._loss_in_epoch = 0, 0.0
        self._began = self._compiled = self._latest = time.perf_counter()
        self._ticked = 0.0

    def wants_all(self) -> bool:
        """Whether everything should be measured of the next step."""
        return self._reader.wants_all(self.entered)

    def will_want_all(self) -> bool:
        """Whether everything is to be measured of the step after the next. It then reads the parameters that the next one begins with."""
        return is_full(self.entered + 1)

    def enter(self, vitals: jax.Array) -> bool:
        """Enter a step that has been dispatched; True when it is time to show something."""
        self._reader.enter(Row(self.entered, self._leaves, ("loss", "correct"), vitals))
        self.entered += 1
        if self.entered == 1:
            self._reader.settle()
            self._compiled = time.perf_counter()
            self.compile_seconds = self._compiled - self._began
        self._latest = time.perf_counter()
        if self._latest - self._ticked < _TICK:
            return False
        self._ticked = self._latest
        return True

    def settle(self, after_report: bool = False) -> None:
        """Read what is left, once no more steps follow. `after_report` leaves out the time since the last step, which a report took."""
        self._reader.settle()
        if not after_report:
            self._latest = time.perf_counter()

    def history(self) -> History:
        """The run as far as it was read."""
        return self._reader.history()

    def _note(self, part: History) -> None:
        self._parts.append(part)
        while sum(map(len, self._parts)) - len(self._parts[0]) > _KEPT:
            self._parts.popleft()
        for loss, correct in zip(part.series["loss"].tolist(), part.series["correct"].tolist(), strict=True):
            if self.first_bad is None and not np.isfinite(loss):
                self.first_bad = self._read
            self._loss_in_epoch += loss
            self._wrong_in_epoch += self._batch_size - int(correct)
            self._read += 1
            if self._read % self._steps_per_epoch == 0:
                self._end_epoch()

    def _end_epoch(self) -> None:
        if self._wrong_in_epoch == 0 and self.overfit is None and self.first_bad is None:
            self.overfit = Reached(epoch=self._read // self._steps_per_epoch, steps=self._read, seconds=self.seconds)
        mean = self._loss_in_epoch / self._steps_per_epoch
        if self.first_bad is None and (self.best is None or mean < self.best[1]):
            self.best = self._read // self._steps_per_epoch, mean
        self._wrong_in_epoch, self._loss_in_epoch = 0, 0.0

    @property
    def total_seconds(self) -> float:
        """Seconds since the beginning, compiling included."""
        return time.perf_counter() - self._began

    @property
    def seconds(self) -> float:
        """Seconds of training: from the end of the first step to the latest one, without what came after it, such as a report."""
        return max(self._latest - self._compiled, 0.0)

    @property
    def steps_per_second(self) -> float | None:
        """The rate of the steps that have been read, without the first one, which compiled."""
        return (self._read - 1) / self.seconds if self._read > 1 and self.seconds > 0 else None

    def snapshot(self, step: int | None = None) -> Snapshot | None:
        """How the run stood at one of the steps that are kept, by default the last one read; None where it is not kept."""
        step = self._read - 1 if step is None else step
        for part in self._parts:
            for point in np.flatnonzero(part.steps == step):
                return Snapshot(
                    step=step,
                    epoch=(step + 1) / self._steps_per_epoch,
                    loss=float(part.series["loss"][point]),
                    accuracy=int(part.series["correct"][point]) / self._batch_size,
                    gradient_norm=_norm(part, int(point)),
                    steps_per_second=self.steps_per_second,
                )
        return None


def _norm(part: History, point: int) -> float:
    """The gradient's norm at a point: 0 where it was too small to be measured, NaN where the gradient was not finite."""
    norm = float(part.series["gradient"][point])
    is_broken = bool((np.nan_to_num(part.layers["gradient_nonfinite"][point]) > 0).any())
    return norm if is_broken or np.isfinite(norm) else 0.0
