"""`Monitor`: the health of a training run, measured on the device and read late."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect.errors import UsageError
from nandetect.history import History, Leaf
from nandetect.monitor import layout
from nandetect.monitor.measure import Given, level_at, measure
from nandetect.monitor.points import Points, history
from nandetect.monitor.rules import judge
from nandetect.monitor.vitals import FULL, LAYERS, TOTALS, WHOLE, level
from nandetect.records import Finding

# Steps that may wait to be read; the last few of them are likely to be on their way still.
_WAITING, _LATE = 64, 16
_TREES = ("params", "grads", "updates")
Sink = Callable[[History], None]


class Monitor:
    """Watches the health of one model's training.

    `directory`: where to keep the run's record; None keeps none. Threads may share one.
    """

    def __init__(self, directory: str | Path | None = None):
        self.directory = directory
        # Whoever wants to have each newly read part of the history, in order.
        self.sinks: list[Sink] = []
        self._leaves: tuple[Leaf, ...] = ()
        self._paths: dict[str, int] = {}
        self._steps = itertools.count()
        self._waiting: deque[_Row] = deque()
        self._points = Points()
        self._lock = threading.RLock()

    def observe(self, *, params: Any = None, grads: Any = None, updates: Any = None, loss: Any = None, **metrics: Any) -> None:
        """Note one step; from inside a compiled function, each time it runs.

        `params`, `grads` and `updates` (what is added to the parameters) are pytrees of the same leaves, `loss` and the other metrics
        scalars; any of them may be left out. A metric `step` is the number of the step, counted from 0; else the calls are counted.
        Raises `UsageError` for a metric that is no scalar, and for trees of another model than before.
        """
        number = metrics.pop("step", None)
        if loss is not None:
            metrics["loss"] = loss
        _check(metrics)
        trees = {name: layout.leaves(tree) for name, tree in zip(_TREES, (params, grads, updates), strict=True) if tree is not None}
        self._learn(trees)
        columns = {name: [trees.get(name, {}).get(path) for path in self._paths] for name in _TREES}
        given = Given(columns["params"], columns["grads"], columns["updates"], [None] * len(self._paths))
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((given, metrics, number))):
            self._traced(given, metrics, number)
            return
        number = next(self._steps) if number is None else int(number)
        here = {name: value for name, value in metrics.items() if not isinstance(value, jax.Array)}
        there = {name: value for name, value in metrics.items() if isinstance(value, jax.Array)}
        numbers = _program(given, list(there.values()), level=level(number))
        self._waiting.append(_Row(number, self._leaves, tuple(there), numbers, here))
        if len(self._waiting) >= _WAITING:
            self._read(len(self._waiting) - _LATE)

    def history(self) -> History:
        """The run so far, also what has not been read yet. Waits for the device."""
        with self._lock:
            self._settle()
            return self._points.history()

    def findings(self) -> list[Finding]:
        """What the run so far shows, also what has not been read yet. Waits for the device."""
        return judge(self.history())

    def _learn(self, trees: dict[str, dict[str, Any]]) -> None:
        """Take the leaves of the first trees as the model's."""
        if not trees:
            return
        with self._lock:
            if not self._leaves:
                known = {path: array for tree in reversed(trees.values()) for path, array in tree.items()}
                first = next(iter(trees.values()))
                known = {**{path: known[path] for path in first}, **known}
                self._leaves = tuple(layout.leaf(path, array) for path, array in known.items())
                self._paths = {path: at for at, path in enumerate(known)}
        for name, tree in trees.items():
            strange = [path for path in tree if path not in self._paths]
            if strange:
                raise UsageError(f"`{name}` holds `{strange[0]}`, which no tree held before: use one Monitor for each model")

    def _traced(self, given: Given, metrics: dict[str, Any], number: Any) -> None:
        numbers = _numbers(given, list(metrics.values()), FULL if number is None else level_at(number))
        number = -1 if number is None else number
        jax.debug.callback(functools.partial(self._arrived, self._leaves, tuple(metrics)), number, numbers)

    def _arrived(self, leaves: tuple[Leaf, ...], names: tuple[str, ...], number: Any, numbers: Any) -> None:
        # Called by the running program: nothing here may wait for it.
        number = int(number)
        self._waiting.append(_Row(next(self._steps) if number < 0 else number, leaves, names, np.array(numbers), {}))

    def _settle(self) -> None:
        jax.effects_barrier()
        self._read(len(self._waiting))

    def _read(self, count: int) -> None:
        with self._lock:
            rows = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            for _, alike in itertools.groupby(rows, key=lambda row: (row.leaves, row.names, tuple(row.here))):
                part = _part(list(alike))
                self._points.add(part)
                for sink in self.sinks:
                    sink(part)


class _Row:
    """One step that waits to be read: the numbers on the device are its metrics `names` and then its vitals; `here` are on the host."""

    __slots__ = ("here", "leaves", "names", "number", "numbers")

    def __init__(self, number: int, leaves: tuple[Leaf, ...], names: tuple[str, ...], numbers: Any, here: dict[str, Any]):
        self.number, self.leaves, self.names, self.numbers, self.here = number, leaves, names, numbers, here


def _part(rows: list[_Row]) -> History:
    first = rows[0]
    numbers = np.stack(jax.device_get([row.numbers for row in rows]))
    metrics = {name: numbers[:, at] for at, name in enumerate(first.names)}
    metrics |= {name: np.array([row.here[name] for row in rows], np.float32) for name in first.here}
    return history(first.leaves, [row.number for row in rows], metrics, numbers[:, len(first.names) :])


def _numbers(given: Given, metrics: list[Any], level: Any) -> jax.Array:
    own = [jnp.asarray(metric).astype(jnp.float32).reshape(()) for metric in metrics]
    return jnp.concatenate([jnp.stack(own), measure(given, level)]) if own else measure(given, level)


_program = functools.partial(jax.jit, static_argnames=("level",))(_numbers)


def _check(metrics: dict[str, Any]) -> None:
    for name, value in metrics.items():
        if name in (*TOTALS, *WHOLE, *LAYERS):
            raise UsageError(f"a metric cannot be called `{name}`: the monitor's own measure is; call it something else")
        if np.ndim(value) or not isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            what = f"an array of shape {np.shape(value)}" if np.ndim(value) else f"a {type(value).__name__}"
            raise UsageError(f"the metric `{name}` is {what}: give one number")
