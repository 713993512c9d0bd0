"""A training run to be watched, and how it is run: one compiled scan that measures every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from health_models import Model, Task

from nandetect.history import History, Leaf


@dataclass(frozen=True)
class Case:
    """A run and what should be said of it: one of the rules `expected`, none where that is empty.

    `absent` names parameters (by a part of their path) that are not trained and whose gradient is not given, `still` those whose update is
    zero. `scale` multiplies the loss before it is differentiated and divides the gradients after. `skip` keeps the parameters where a gradient
    is not finite. `spoil` is the share of steps whose gradient is made inf. `spikes` are steps whose gradient is multiplied by `factor`.
    """

    name: str
    model: Callable[[], Model]
    task: Callable[[], Task]
    optimizer: Callable[[], optax.GradientTransformation]
    expected: frozenset[str] = frozenset()
    steps: int = 400
    batch: int = 32
    seed: int = 0
    dtype: str = "float32"
    absent: str = ""
    still: str = ""
    scale: float = 1.0
    skip: bool = False
    spoil: float = 0.0
    spikes: tuple[int, ...] = ()
    factor: float = 3.0
    loss: Callable[..., Any] | None = None
    fault: str = field(default="")

    @property
    def sick(self) -> bool:
        return bool(self.expected)


def record(case: Case) -> tuple[History, Any]:
    """Train as the case says; its history, and the parameters at its start."""
    model, task, tx = case.model(), case.task(), case.optimizer()
    key = jax.random.key(case.seed)
    params = jax.tree.map(lambda leaf: leaf.astype(case.dtype), model.init(jax.random.fold_in(key, 1)))
    paths = [_written(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    leaves, structure = jax.tree.flatten(params)
    trained = np.array([not (case.absent and case.absent in path) for path in paths])
    still = np.array([bool(case.still) and case.still in path for path in paths])
    rng = np.random.default_rng(case.seed)
    order = np.concatenate([rng.permutation(len(task.inputs)) for _ in range(-(-case.steps * case.batch // len(task.inputs)))])
    rows = jnp.asarray(order[: case.steps * case.batch].reshape(case.steps, case.batch))
    spikes = np.zeros(case.steps, bool)
    spikes[list(case.spikes)] = True
    spoilt = rng.random(case.steps) < case.spoil
    inputs, targets = jnp.asarray(task.inputs), jnp.asarray(task.targets)

    def objective(chosen: Any, params: Any, batch: Any, key: Any) -> Any:
        given = jax.tree.unflatten(structure, [c if t else p for c, p, t in zip(chosen, jax.tree.leaves(params), trained, strict=True)])
        if case.loss is not None:
            loss = case.loss(model.apply, given, *batch, key)
        else:
            loss = task.loss(model.apply(given, batch[0], key), batch[1])
        return loss * case.scale, loss

    def step(state: Any, now: Any) -> Any:
        params, opt_state, before = state
        row, spike, spoil, key = now
        (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(
            jax.tree.leaves(params), params, (inputs[row], targets[row]), key
        )
        grads = [g / case.scale for g in grads]
        grads = [jnp.where(spoil, jnp.inf, jnp.where(spike, g * case.factor, g)).astype(g.dtype) if t else jnp.zeros_like(g) for g, t in zip(grads, trained, strict=True)]
        updates, new_state = tx.update(jax.tree.unflatten(structure, grads), opt_state, params)
        updates = [jnp.zeros_like(u) if f or not t else u for u, f, t in zip(jax.tree.leaves(updates), still, trained, strict=True)]
        if case.skip:
            fine = jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in grads]))
            updates = [jnp.where(fine, u, jnp.zeros_like(u)) for u in updates]
            new_state = jax.tree.map(lambda new, old: jnp.where(fine, new, old), new_state, opt_state)
        new = optax.apply_updates(params, jax.tree.unflatten(structure, updates))
        return (new, new_state, updates), measured(jax.tree.leaves(params), grads, updates, before, loss)

    zero = [jnp.zeros_like(leaf) for leaf in leaves]
    _, seen = jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params), zero), (rows, spikes, spoilt, jax.random.split(key, case.steps))))()
    series, layers = jax.tree.map(lambda array: np.array(array, np.float32), seen)
    series["along_before"][0] = np.nan
    for name, column in layers.items():
        if name.startswith("gradient") or name == "update":
            column[:, ~trained] = np.nan
    noted = tuple(Leaf(path=path, shape=tuple(leaf.shape), dtype=str(leaf.dtype)) for path, leaf in zip(paths, leaves, strict=True))
    return History(leaves=noted, steps=np.arange(case.steps), series=series, layers=layers), params


def measured(params: Any, grads: Any, updates: Any, before: Any, loss: Any) -> Any:
    """What `monitor.vitals` names, of one step."""
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    clean = lambda x: jnp.where(jnp.isfinite(x), wide(x), 0)
    norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(clean(x) / _top(x)))) * _top(x)
    idle = lambda g: jnp.mean(jnp.all(g == 0, axis=tuple(range(g.ndim - 1)))) if g.ndim > 1 else jnp.float32(jnp.nan)
    dot = lambda xs, ys: sum(jnp.sum(clean(x) * clean(y)) for x, y in zip(xs, ys, strict=True))
    layers = {
        "gradient": [norm(g) for g in grads],
        "gradient_max": [jnp.max(jnp.abs(clean(g))) for g in grads],
        "gradient_zero": [jnp.mean(g == 0) for g in grads],
        "gradient_tiny": [jnp.mean((g != 0) & (jnp.abs(wide(g)) < float(jnp.finfo(g.dtype).tiny))) for g in grads],
        "gradient_idle": [idle(g) for g in grads],
        "gradient_nonfinite": [jnp.sum(~jnp.isfinite(g)) for g in grads],
        "weight": [norm(p) for p in params],
        "weight_max": [jnp.max(jnp.abs(clean(p))) for p in params],
        "update": [norm(u) for u in updates],
    }
    total = lambda name: jnp.sqrt(sum(jnp.square(x.astype(jnp.float32)) for x in layers[name]))
    series = {
        "loss": loss,
        "gradient": total("gradient"),
        "weight": total("weight"),
        "update": total("update"),
        "along": dot(grads, updates),
        "along_before": dot(grads, before),
    }
    return series, {name: jnp.stack([jnp.asarray(x, jnp.float32) for x in column]) for name, column in layers.items()}


def _top(x: Any) -> Any:
    """The scale by which a norm is divided while it is summed up, so that no square overflows."""
    wide = jnp.where(jnp.isfinite(x), x.astype(jnp.float32), 0)
    return jnp.maximum(jnp.max(jnp.abs(wide)), 1e-30)


def _written(path: Any) -> str:
    text = ""
    for key in path:
        name = getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else str(name)
    return text
