"""What has been read of a run so far. Metrics are read a few steps late, when they lie ready: reading must not hold up the device."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from nandetect.train.settings import Reached, Snapshot

# Steps that may be on their way before the oldest one's metrics are waited for.
_LATE = 16
# Steps whose metrics are kept after they were read: a guard may find a fault a few steps after it happened.
_KEPT = 64
_TICK = 0.1


class Ledger:
    """Steps in, numbers out. The first step compiles; the clock of `seconds` starts after it."""

    def __init__(self, steps_per_epoch: int, batch_size: int):
        self.entered = 0
        self.overfit: Reached | None = None
        # The epoch, counted from 1, whose steps had the lowest mean loss, and that loss.
        self.best: tuple[int, float] | None = None
        self.first_bad: int | None = None
        self.compile_seconds: float | None = None
        self._steps_per_epoch, self._batch_size = steps_per_epoch, batch_size
        self._metrics: dict[int, dict[str, Any]] = {}
        self._read = 0
        self._wrong_in_epoch, self._loss_in_epoch = 0, 0.0
        self._began = self._compiled = self._latest = time.perf_counter()
        self._ticked = 0.0

    def enter(self, metrics: dict[str, Any]) -> bool:
        """Enter a step that has been dispatched; True when it is time to show something."""
        self._metrics[self.entered] = metrics
        self.entered += 1
        if self.entered == 1:
            self._read_one()
            self._compiled = time.perf_counter()
            self.compile_seconds = self._compiled - self._began
        elif self.entered - self._read > _LATE:
            self._read_one()
        self._latest = time.perf_counter()
        if self._latest - self._ticked < _TICK:
            return False
        self._ticked = self._latest
        return True

    def settle(self) -> None:
        """Read what is left, once no more steps follow."""
        while self._read < self.entered:
            self._read_one()
        self._latest = time.perf_counter()

    def _read_one(self) -> None:
        # np.asarray: float() of a JAX array takes twenty times as long.
        metrics = self._metrics[self._read]
        self._metrics.pop(self._read - _KEPT, None)
        loss = float(np.asarray(metrics["loss"]))
        if self.first_bad is None and not math.isfinite(loss):
            self.first_bad = self._read
        self._loss_in_epoch += loss
        self._wrong_in_epoch += self._batch_size - int(np.asarray(metrics["correct"]))
        self._read += 1
        if self._read % self._steps_per_epoch == 0:
            if self._wrong_in_epoch == 0 and self.overfit is None and self.first_bad is None:
                self.overfit = Reached(epoch=self._read // self._steps_per_epoch, steps=self._read, seconds=self.seconds)
            mean = self._loss_in_epoch / self._steps_per_epoch
            if self.first_bad is None and (self.best is None or mean < self.best[1]):
                self.best = self._read // self._steps_per_epoch, mean
            self._wrong_in_epoch, self._loss_in_epoch = 0, 0.0

    @property
    def total_seconds(self) -> float:
        """Since the beginning, compiling included."""
        return time.perf_counter() - self._began

    @property
    def seconds(self) -> float:
        """From the end of the first step to the latest one: what came after it, such as a report, is no training."""
        return max(self._latest - self._compiled, 0.0)

    @property
    def steps_per_second(self) -> float | None:
        """Without the first step, which compiled; with the steps that are still on their way left out."""
        return (self._read - 1) / self.seconds if self._read > 1 and self.seconds > 0 else None

    def snapshot(self, step: int | None = None) -> Snapshot | None:
        """How the run stood at a step not long ago; at the last one that was read, where none is named."""
        step = self._read - 1 if step is None else step
        metrics = self._metrics.get(step)
        if metrics is None:
            return None
        return Snapshot(
            step=step,
            epoch=(step + 1) / self._steps_per_epoch,
            loss=float(np.asarray(metrics["loss"])),
            accuracy=int(np.asarray(metrics["correct"])) / self._batch_size,
            gradient_norm=float(np.asarray(metrics["gradient_norm"])),
            steps_per_second=self.steps_per_second,
        )
