"""What is looked at before the first step: the parameters as they were drawn, on some of the training samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from nandetect.audit import audit_init
from nandetect.records import Finding
from nandetect.train.prepare import Ready

# Enough to tell a dead unit from one that happens to rest.
_SAMPLES = 512
# What a better scheme would have spared: findings of these rules are worth a second run under it.
RULES = ("init-scale", "init-symmetry")


def audited(ready: Ready) -> tuple[Finding, ...]:
    """The findings of the init audit on a run that has not begun."""
    inputs, loss = batch(ready)
    return tuple(audit_init(ready.params, ready.model.apply, inputs, loss))


def batch(ready: Ready) -> tuple[Any, Callable[[Any], Any]]:
    """The first training samples as inputs, and the loss on them as a function of the parameters."""
    inputs, targets = (jnp.asarray(array[:_SAMPLES]) for array in (ready.inputs, ready.targets))

    def loss(params: Any) -> Any:
        return ready.model.losses[ready.loss](ready.model.apply(params, inputs), targets)

    return inputs, loss
