"""A training run to be watched, and how it is run: a jitted step in a plain loop, observed by `nd.Monitor`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from health_models import Model, Task

import nandetect as nd


@dataclass(frozen=True)
class Case:
    """A run and what should be said of it: one of the rules `expected`, with a cause that matches `cause`; none where that is empty.

    `absent` names parameters (by a part of their path) that are not trained and whose gradient is not given, `still` those whose update is
    zero. `scale` multiplies the loss before it is differentiated and, with `unscale`, divides the gradients that the optimizer is given.
    `skip` keeps the parameters where a gradient is not finite. `spoil` is the share of steps whose gradient is made inf. `spikes` are
    steps whose gradient is multiplied by `factor`.
    """

    name: str
    model: Callable[[], Model]
    task: Callable[[], Task]
    optimizer: Callable[[], optax.GradientTransformation]
    expected: frozenset[str] = frozenset()
    cause: str = ""
    steps: int = 400
    batch: int = 32
    seed: int = 0
    dtype: str = "float32"
    absent: str = ""
    still: str = ""
    scale: float = 1.0
    unscale: bool = True
    skip: bool = False
    spoil: float = 0.0
    spikes: tuple[int, ...] = ()
    factor: float = 3.0
    loss: Callable[..., Any] | None = None
    fault: str = field(default="")

    @property
    def sick(self) -> bool:
        return bool(self.expected)


def watch(case: Case) -> tuple[nd.Monitor, Any]:
    """Train as the case says under an `nd.Monitor`; the monitor, and the parameters at the start."""
    model, task, tx = case.model(), case.task(), case.optimizer()
    key = jax.random.key(case.seed)
    start = params = jax.tree.map(lambda leaf: leaf.astype(case.dtype), model.init(jax.random.fold_in(key, 1)))
    structure = jax.tree.structure(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    absent = [bool(case.absent) and case.absent in path for path in paths]
    still = [bool(case.still) and case.still in path for path in paths]
    rng = np.random.default_rng(case.seed)
    order = np.concatenate([rng.permutation(len(task.inputs)) for _ in range(-(-case.steps * case.batch // len(task.inputs)))])
    rows = jnp.asarray(order[: case.steps * case.batch].reshape(case.steps, case.batch))
    factor = np.ones(case.steps, np.float32)
    factor[rng.random(case.steps) < case.spoil] = np.inf
    factor[list(case.spikes)] = case.factor
    inputs, targets = jnp.asarray(task.inputs), jnp.asarray(task.targets)

    def objective(params: Any, row: Any, key: Any) -> Any:
        if case.loss is not None:
            loss = case.loss(model.apply, params, inputs[row], targets[row], key)
        else:
            loss = task.loss(model.apply(params, inputs[row], key), targets[row])
        return loss * case.scale, loss

    @jax.jit
    def step(params: Any, opt_state: Any, row: Any, factor: Any, key: Any) -> Any:
        (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(params, row, key)
        grads = jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)
        given = jax.tree.unflatten(structure, [None if a else g for a, g in zip(absent, jax.tree.leaves(grads), strict=True)])
        # Unscaled in the gradient's own dtype or not at all: a loss scale that is left in is the learning rate's to undo.
        if case.unscale:
            grads = jax.tree.map(lambda g: (g.astype(jnp.float32) / case.scale).astype(g.dtype), grads)
        grads = jax.tree.unflatten(structure, [0 * g if a else g for a, g in zip(absent, jax.tree.leaves(grads), strict=True)])
        updates, new_state = tx.update(grads, opt_state, params)
        held = [a or s for a, s in zip(absent, still, strict=True)]
        updates = jax.tree.unflatten(structure, [0 * u if h else u for h, u in zip(held, jax.tree.leaves(updates), strict=True)])
        if case.skip:
            fine = jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads)]))
            updates = jax.tree.map(lambda u: jnp.where(fine, u, 0), updates)
            new_state = jax.tree.map(lambda new, old: jnp.where(fine, new, old), new_state, opt_state)
        return optax.apply_updates(params, updates), new_state, loss, given, updates

    monitor, opt_state = nd.Monitor(), tx.init(params)
    keys = jax.random.split(key, case.steps)
    for at in range(case.steps):
        new, opt_state, loss, grads, updates = step(params, opt_state, rows[at], factor[at], keys[at])
        monitor.observe(params=params, grads=grads, updates=updates, loss=loss)
        params = new
    return monitor, start
