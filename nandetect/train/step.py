"""One step of training, and the accuracy of the parameters that it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.annotations import Array, Pytree
from nandetect.data import Part
from nandetect.monitor import in_step
from nandetect.monitor.in_step import LeafArrays, with_metrics
from nandetect.monitor.vitals import MISSING
from nandetect.nonfinite import widened
from nandetect.train.optimizers import Optimizer

Apply = Callable[[Pytree, Array], Array]
Loss = Callable[[Array, Array], Array]
# Samples that are classified at a time.
_CHUNK = 2048


class Stepped(NamedTuple):
    """The results of a step; its field names are the pytree paths that a report shows."""

    params: Pytree
    state: Pytree
    metrics: dict[str, jax.Array]


class TrainStep(Protocol):
    """A step over a mini-batch, jitted or guarded or neither, as `make_step` describes it."""

    def __call__(
        self, params: Pytree, state: Pytree, inputs: Array, labels: Array, before: Pytree = None, full: bool | None = None
    ) -> Stepped: ...


def make_step(apply: Apply, loss: Loss, optimizer: Optimizer) -> TrainStep:
    """The step over a mini-batch: loss, gradient, update.

    Its metrics are the loss, the number of samples that were right and the gradient's norm. With `full` (static; True or False) they are
    the loss and `vitals`: that loss, that number, and after them a full measure of the step or a light one. `before` are the parameters
    that the step before began with; only a full measure reads them.
    """

    def step(params: Pytree, state: Pytree, inputs: Array, labels: Array, before: Pytree = None, full: bool | None = None) -> Stepped:
        def objective(params: Pytree) -> tuple[Array, Array]:
            logits = apply(params, inputs)
            return loss(logits, labels), logits

        (value, logits), grads = jax.value_and_grad(objective, has_aux=True)(params)
        correct = jnp.sum(jnp.argmax(logits, -1) == jnp.argmax(labels, -1))
        new, state = optimizer.update(params, state, grads)
        if full is None:
            metrics = {"loss": value, "correct": correct, "gradient_norm": global_norm(grads)}
        else:
            # A loss that is not finite is a fault in `loss` alone, not a second one here.
            finite_loss = jnp.where(jnp.isfinite(value), value.astype(jnp.float32), MISSING)
            metrics = {"loss": value, "vitals": with_metrics([finite_loss, correct], _vitals(full, grads, params, new, before))}
        return Stepped(new, state, metrics)

    return step


def _vitals(full: bool, *trees: Pytree) -> jax.Array:
    """The vitals from the gradients, the parameters, those after the step and those before the last one."""
    columns = map(jax.tree.leaves, trees)
    leaves = [LeafArrays(grad=grad, param=param, new=new, old=old) for grad, param, new, old in zip(*columns, strict=True)]
    return in_step.full(leaves) if full else in_step.light(leaves)


def global_norm(grads: Pytree) -> jax.Array:
    """The l2 norm of the whole gradient, in float32 at least. It is finite where the gradient is: measuring must not be what overflows."""
    leaves = [widened(leaf) for leaf in jax.tree.leaves(grads)]
    norm = jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in leaves))
    return jnp.minimum(norm, jnp.finfo(norm.dtype).max)


def accuracy(apply: Apply, params: Pytree, part: Part, dtype: np.dtype) -> float:
    """The share of samples whose largest logit is that of their class; a row of logits with a NaN is wrong."""
    return scorer(apply, dtype)(params, part)


def scorer(apply: Apply, dtype: np.dtype) -> Callable[[Pytree, Part], float]:
    """`accuracy` as a function of the parameters and the samples, which compiles once for each number of samples."""

    @jax.jit
    def predicted(params: Pytree, inputs: jax.Array) -> jax.Array:
        logits = apply(params, inputs)
        return jnp.where(jnp.isnan(logits).any(-1), -1, jnp.argmax(logits, -1))

    def score(params: Pytree, part: Part) -> float:
        chunks = (slice(start, start + _CHUNK) for start in range(0, len(part), _CHUNK))
        right = [np.asarray(predicted(params, part.inputs[rows].astype(dtype))) == part.labels[rows] for rows in chunks]
        return float(np.concatenate(right).mean())

    return score
