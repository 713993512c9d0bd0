"""One step of training, and the accuracy of what it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.data import Part
from nandetect.monitor import in_step
from nandetect.monitor.in_step import Given, together
from nandetect.monitor.vitals import MISSING
from nandetect.nonfinite import widened
from nandetect.train.optimizers import Optimizer

_CHUNK = 2048


class Stepped(NamedTuple):
    """What a step returns; its field names are the pytree paths that a report shows."""

    params: Any
    state: Any
    metrics: dict[str, jax.Array]


Step = Callable[..., Stepped]


def make_step(apply: Callable[..., Any], loss: Callable[..., Any], optimizer: Optimizer) -> Step:
    """The step over a mini-batch: loss, gradient, update.

    Its metrics are the loss, the number of samples that were right and the gradient's norm; with `full` (static; True or False) the loss,
    and a row of vitals, a full measure of them or a light one, after the loss and that number. `before` are the parameters that the step
    before began with; they are read by a full measure only.
    """

    def step(params: Any, state: Any, inputs: Any, labels: Any, before: Any = None, full: bool | None = None) -> Stepped:
        def objective(params: Any) -> tuple[Any, Any]:
            logits = apply(params, inputs)
            return loss(logits, labels), logits

        (value, logits), grads = jax.value_and_grad(objective, has_aux=True)(params)
        correct = jnp.sum(jnp.argmax(logits, -1) == jnp.argmax(labels, -1))
        new, state = optimizer.update(params, state, grads)
        if full is None:
            metrics = {"loss": value, "correct": correct, "gradient_norm": global_norm(grads)}
        else:
            # A loss that is not finite is a fault in one place, which is not this.
            known = jnp.where(jnp.isfinite(value), value.astype(jnp.float32), MISSING)
            metrics = {"loss": value, "vitals": together([known, correct], _vitals(full, grads, params, new, before))}
        return Stepped(new, state, metrics)

    return step


def _vitals(full: bool, *trees: Any) -> jax.Array:
    """The vitals from the gradients, the parameters, those after the step and those before the last one."""
    leaves = [Given(grad=grad, param=param, new=new, old=old) for grad, param, new, old in zip(*map(jax.tree.leaves, trees), strict=True)]
    return in_step.full(leaves) if full else in_step.light(leaves)


def global_norm(grads: Any) -> jax.Array:
    """The length of the whole gradient, in float32 at least. A finite gradient's is finite: measuring must not be what overflows."""
    leaves = [widened(leaf) for leaf in jax.tree.leaves(grads)]
    norm = jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in leaves))
    return jnp.minimum(norm, jnp.finfo(norm.dtype).max)


def accuracy(apply: Callable[..., Any], params: Any, part: Part, dtype: Any) -> float:
    """The share of samples whose largest logit is the right one; a row with a NaN in it is wrong."""
    return scorer(apply, dtype)(params, part)


def scorer(apply: Callable[..., Any], dtype: Any) -> Callable[[Any, Part], float]:
    """`accuracy` as a function of the parameters and the samples, which compiles once for each number of samples."""

    @jax.jit
    def predicted(params: Any, inputs: Any) -> Any:
        logits = apply(params, inputs)
        return jnp.where(jnp.isnan(logits).any(-1), -1, jnp.argmax(logits, -1))

    def score(params: Any, part: Part) -> float:
        chunks = (slice(at, at + _CHUNK) for at in range(0, len(part), _CHUNK))
        right = [np.asarray(predicted(params, part.inputs[rows].astype(dtype))) == part.labels[rows] for rows in chunks]
        return float(np.concatenate(right).mean())

    return score
