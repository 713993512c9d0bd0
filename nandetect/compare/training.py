"""A training under each loss, with the same model, data, seeds and order of batches, to see whether it shows a difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.annotations import Pytree
from nandetect.compare.pair import Loss, Side
from nandetect.compare.parameters import Scene
from nandetect.compare.results import Trained, Training
from nandetect.errors import NonFiniteError, UsageError
from nandetect.guarding.guard import guard
from nandetect.train.optimizers import OPTIMIZERS
from nandetect.train.prepare import Ready, batches, prepare
from nandetect.train.settings import STEPS, TrainSettings
from nandetect.train.step import make_step

# Steps between two scores of the accuracy.
SCORE_EVERY = 100
# The relative difference from which on two losses have parted: rounding alone is far below it at first.
PARTED = 1e-3


def training(sides: tuple[Side, Side], scene: Scene, seed: int, dtype: str, steps: int = STEPS) -> Training:
    """Train the bundled model on the embedded digits. Raises `UsageError` where the two are no losses of logits and labels."""
    if len(scene.roles) != 2 or scene.labels not in ("onehot", "classes"):
        raise UsageError(f"--train needs losses of logits and labels, not of ({', '.join(scene.names)})")
    ready = prepare(TrainSettings(seed=seed, steps=steps, dtype=dtype, x64=dtype == "float64"))
    runs = [_run(side, scene, ready, seed, steps) for side in sides]
    (first, first_losses), (second, second_losses) = runs
    return Training(parted_at=_parted(first_losses, second_losses), runs=(first, second))


def _run(side: Side, scene: Scene, ready: Ready, seed: int, steps: int) -> tuple[Trained, list[float]]:
    """The training of one side and its losses, up to the first non-finite step."""
    settings = TrainSettings(seed=seed)
    step = guard(jax.jit(make_step(ready.model.apply, _loss(side, scene), OPTIMIZERS[settings.optimizer](settings.lr))), check_every=32)
    score = _accuracy(ready)
    params, state = ready.params, ready.state
    losses: list[jax.Array] = []
    accuracy: list[tuple[int, jax.Array]] = []
    report = None
    try:
        for number, (inputs, labels) in zip(range(steps), batches(ready, seed), strict=False):
            if number % SCORE_EVERY == 0:
                accuracy.append((number, score(params)))
            params, state, metrics = step(params, state, inputs, labels)
            losses.append(metrics["loss"])
        accuracy.append((steps, score(params)))
        step.flush()
    except NonFiniteError as error:
        report = replace(error.report, label=side.name, called_at=None)
    bad_step = None if report is None else report.step
    numbers = [float(loss) for loss in jax.device_get(losses[:bad_step])]
    trained = Trained(
        name=side.name,
        steps=len(numbers),
        non_finite_step=bad_step,
        report=report,
        loss=numbers[-1] if numbers else None,
        accuracy=tuple((number, float(share)) for number, share in accuracy if bad_step is None or number <= bad_step),
    )
    return trained, numbers


def _loss(side: Side, scene: Scene) -> Loss:
    """The loss as a function of one-hot labels, which is what the batches hold."""
    if scene.labels == "onehot":
        return side.function
    return lambda logits, labels: side.function(logits, jnp.argmax(labels, -1).astype(jnp.int32))


def _accuracy(ready: Ready) -> Callable[[Pytree], jax.Array]:
    """A function from a model's parameters to the share of the held-out samples that they get right."""
    part = ready.data.held_out
    inputs, labels = part.inputs.astype(ready.dtype), np.asarray(part.labels)
    return jax.jit(lambda params: jnp.mean(jnp.argmax(ready.model.apply(params, inputs), -1) == labels))


def _parted(first: list[float], second: list[float]) -> int | None:
    """The first step whose losses differ, or that only one of them reached."""
    for step, (loss, other) in enumerate(zip(first, second, strict=False)):
        if not math.isclose(loss, other, rel_tol=PARTED, abs_tol=PARTED**2):
            return step
    return min(len(first), len(second)) if len(first) != len(second) else None
