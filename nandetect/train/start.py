"""The audit before the first step: of the parameters as they were drawn, on some of the training samples."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nandetect.annotations import Array, Pytree
from nandetect.audit import audit_init
from nandetect.records import Finding
from nandetect.train.prepare import Ready

# Samples that are enough to tell a dead unit from one that happens to be 0 on some.
_SAMPLES = 512
# Rules whose findings are worth a second run, from a better scheme, that shows what they cost.
RULES = ("init-scale", "init-symmetry")


def audited(ready: Ready) -> tuple[Finding, ...]:
    """The findings of the init audit on a run that has not begun."""
    inputs, loss = batch(ready)
    return tuple(audit_init(ready.params, ready.model.apply, inputs, loss))


def batch(ready: Ready) -> tuple[jax.Array, Callable[[Pytree], Array]]:
    """The first training samples as inputs, and the loss on them as a function of the parameters."""
    inputs, targets = (jnp.asarray(array[:_SAMPLES]) for array in (ready.inputs, ready.targets))

    def loss(params: Pytree) -> Array:
        return ready.model.losses[ready.loss](ready.model.apply(params, inputs), targets)

    return inputs, loss
