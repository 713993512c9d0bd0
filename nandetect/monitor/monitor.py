"""`Monitor`: the health of a training run, measured on the device and read late."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.history import History
from nandetect.monitor import traced
from nandetect.monitor.in_step import LeafArrays, Metric, full, light, of_state, with_metrics
from nandetect.monitor.layout import Layout
from nandetect.monitor.reading import Reader, Row, Sink
from nandetect.monitor.record import RecordSink
from nandetect.monitor.rules import judge
from nandetect.monitor.vitals import LAYERS, TOTALS, WHOLE, is_full
from nandetect.records import Finding

_TREES = ("params", "grads", "updates")
# The arrays of one tree in the order of the leaves, None where it has none.
Column = list[Array | None]
_RESERVED = frozenset((*TOTALS, *WHOLE, *LAYERS))


class Monitor:
    """Watches the health of one model's training.

    `directory` is where to keep the run's record, which `nandetect show` reads, also while it is written; without one nothing is kept.
    Threads may share a monitor.
    """

    def __init__(self, directory: str | Path | None = None):
        self._reader = Reader()
        if directory is not None:
            self._reader.sinks.append(RecordSink(directory, self._reader.history, self.history))
        self._layout = Layout()
        self._steps = itertools.count()
        # The number of the step observed last, and the columns of it that a full measure of the next step reads.
        self._last: tuple[int, dict[str, Column]] = (-1, {})

    @property
    def sinks(self) -> list[Sink]:
        """Functions to call with each part of the history as soon as it was read, in order."""
        return self._reader.sinks

    def observe(
        self,
        *,
        params: Pytree = None,
        grads: Pytree = None,
        updates: Pytree = None,
        loss: Metric | None = None,
        opt_state: Pytree = None,
        **metrics: Metric,
    ) -> None:
        """Note one step; inside a compiled function, each time that it runs.

        `params`, `grads` and `updates` (what is added to the parameters) are pytrees of the same leaves, `loss` and the other metrics
        scalars; any of them may be left out. A metric `step` is the number of the step, counted from 0; else the calls are counted.
        `opt_state` is the state of an optimizer that `optax_health.watch` wraps, and stands for the three trees; stacked by a `scan` of
        T steps (as `optax_health.vitals`), it comes with metrics of shape [T].

        Outside of compiled functions nothing waits for the device: what is small is computed there and read later, of most steps only the
        gradients' norms (see `vitals.is_full`). Inside, everything is measured each time, or as outside where a traced `step` is given,
        and handed to the host by a callback, under `jit`, `grad`, `scan`, `while_loop`, `cond` and `vmap` (whose batch counts as one step:
        the mean of it, the largest maximum, all that is not finite). Raises `UsageError` inside `shard_map`, where each device sees a part
        only; for metrics that are no scalars; and for trees of another model than before.
        """
        step = metrics.pop("step", None)
        if loss is not None:
            metrics["loss"] = loss
        if opt_state is not None:
            self._observe_state(opt_state, metrics, step, trees=(params, grads, updates))
            return
        _check(metrics, 0)
        trees = {name: tree for name, tree in zip(_TREES, (params, grads, updates), strict=True) if tree is not None}
        # One traced array makes the step a traced one. Gradients, where given, stand for all trees: of most steps only they are read.
        leaves = [*metrics.values(), step, *jax.tree.leaves(grads if grads is not None else trees)]
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            numbers = traced.measured(self._leaf_arrays(trees), None if step is None else is_full(step))
            traced.send(self._arrived, self._layout.leaves, metrics, numbers, step)
        else:
            self._observe_here(trees, metrics, next(self._steps) if step is None else int(step))

    def history(self) -> History:
        """The run so far, with the steps that have not been read yet. Waits for the device."""
        jax.effects_barrier()
        self._reader.settle()
        return self._reader.history()

    def findings(self) -> list[Finding]:
        """The findings of the run so far, with the steps that have not been read yet. Waits for the device."""
        return judge(self.history())

    def _leaf_arrays(self, trees: Mapping[str, Pytree]) -> list[LeafArrays]:
        columns = [self._layout.column(name, trees[name]) if name in trees else None for name in _TREES]
        nothing = [None] * len(self._layout.leaves)
        params, grads, updates = (column or nothing for column in columns)
        return [LeafArrays(grad=grad, param=param, update=update) for param, grad, update in zip(params, grads, updates, strict=True)]

    def _observe_here(self, trees: Mapping[str, Pytree], metrics: Mapping[str, Metric], number: int) -> None:
        """Observe a step whose arrays are concrete."""
        if not self._layout.leaves:
            for name, tree in trees.items():
                self._layout.column(name, tree)
        full = self._reader.wants_all(number)
        columns = self._columns(trees, number, full)
        on_device = {name: value for name, value in metrics.items() if isinstance(value, jax.Array)}
        on_host = {name: value for name, value in metrics.items() if name not in on_device}
        try:
            if full:
                numbers = _full(columns, list(on_device.values()), leaves=len(self._layout.leaves))
            else:
                numbers = _light(columns.get("grads") or [None] * len(self._layout.leaves), list(on_device.values()))
        except RuntimeError:
            _refuse_donated({**trees, **metrics})
            raise
        if not self._computes_on_host:
            numbers.copy_to_host_async()
        self._reader.enter(Row(number, self._layout.leaves, tuple(on_device), numbers, on_host))

    def _columns(self, trees: Mapping[str, Pytree], number: int, full: bool) -> dict[str, Column]:
        """The columns to measure of this step; those that a full measure of the next step will read are kept for it."""
        last_number, last_columns = self._last
        next_in_full = is_full(number + 1)
        wanted = _TREES if full or next_in_full else ("grads",)
        columns = {name: self._layout.column(name, tree) for name, tree in trees.items() if name in wanted}
        self._last = number, {}
        if next_in_full and "updates" in columns:
            self._last = number, {"before": columns["updates"]}
        elif next_in_full and "params" in columns:
            self._last = number, {"last": columns["params"]}
        if full and last_number == number - 1:
            columns |= {name: column for name, column in last_columns.items() if column and _is_alive(column)}
        return columns

    @functools.cached_property
    def _computes_on_host(self) -> bool:
        return jax.default_backend() == "cpu"

    def _observe_state(self, opt_state: Pytree, metrics: Mapping[str, Metric], step: Metric | None, trees: tuple[Pytree, ...]) -> None:
        if any(tree is not None for tree in trees):
            raise UsageError("give either `opt_state`, which has seen the gradients and the updates, or the trees themselves")
        vitals = of_state(opt_state)
        _check(metrics, np.ndim(vitals.step))
        step = vitals.step if step is None else step
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((vitals, metrics, step))):
            traced.send(self._arrived, vitals.leaves, metrics, vitals.numbers, step)
            return
        # Copies of the vitals, since a later step may donate the state that holds them.
        numbers, step = _copied(vitals.numbers, list(metrics.values()), step)
        self._reader.enter(Row(step, vitals.leaves, tuple(metrics), numbers))

    def _arrived(self, row: Row) -> None:
        """Enter a row from inside a running program, and number it where the program did not."""
        if row.steps is None:
            row.steps = next(self._steps)
        self._reader.leave(row)


@jax.jit
def _light(grads: Column, metrics: list[jax.Array]) -> jax.Array:
    return with_metrics(metrics, light([LeafArrays(grad=grad) for grad in grads]))


@functools.partial(jax.jit, static_argnames=("leaves",))
def _full(columns: dict[str, Column], metrics: list[jax.Array], leaves: int) -> jax.Array:
    fields = {"params": "param", "grads": "grad", "updates": "update", "before": "before", "last": "last"}
    arrays = [LeafArrays(**{fields[name]: column[leaf] for name, column in columns.items()}) for leaf in range(leaves)]
    return with_metrics(metrics, full(arrays))


@jax.jit
def _copied(numbers: jax.Array, metrics: list[Metric], step: Metric) -> tuple[jax.Array, jax.Array]:
    return with_metrics(metrics, numbers), jnp.asarray(step) + 0


def _is_alive(column: Column) -> bool:
    """Whether the arrays of a column kept from the last step still exist: the next step may have donated them."""
    return not any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in column)


def _refuse_donated(trees: Mapping[str, Pytree]) -> None:
    """Raise `UsageError` where one of the trees holds arrays that were donated."""
    for name, tree in trees.items():
        if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(tree)):
            raise UsageError(f"`{name}` holds arrays that were donated to a step: observe what the step returned")


def _check(metrics: Mapping[str, Metric], axes: int) -> None:
    """Raise `UsageError` for a metric whose name is taken, or that is not one number for each step."""
    for name, value in metrics.items():
        if name in _RESERVED:
            raise UsageError(f"a metric cannot be called `{name}`, which the monitor measures itself: call it something else")
        if np.ndim(value) != axes or not isinstance(value, jax.Array | np.ndarray | np.generic | int | float):
            what = f"an array of shape {np.shape(value)}" if np.ndim(value) else f"a {type(value).__name__}"
            raise UsageError(f"the metric `{name}` is {what}: give one number for each step")
