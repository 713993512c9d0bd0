"""What a run needs, made from its settings: data, model, parameters and the step. Settings that cannot work are refused here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import data
from nandetect.annotations import Pytree
from nandetect.data.dataset import Data, stratified
from nandetect.errors import UsageError
from nandetect.targets import model_file
from nandetect.targets.defaults import LOSS, SCHEME
from nandetect.targets.model_file import Model
from nandetect.train.optimizers import OPTIMIZERS
from nandetect.train.settings import DTYPES, STEPS, TrainSettings
from nandetect.train.step import TrainStep, make_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Everything that a run needs. `inputs` and `targets` are the training samples, the targets one-hot; `steps` may be infinite."""

    data: Data
    model: Model
    loss: str
    init: str | None
    dtype: jnp.dtype
    inputs: np.ndarray
    targets: np.ndarray
    batch_size: int
    params: Pytree
    state: Pytree
    step: TrainStep
    steps_per_epoch: int
    steps: float


def prepare(settings: TrainSettings, loaded: Data | None = None) -> Ready:
    """Load the data and the model, check them, draw the parameters and build the step.

    `loaded` is the data that `settings.data` names, where the caller has it already.
    """
    dtype = jnp.dtype(_known("dtype", settings.dtype or ("float64" if settings.x64 else "float32"), dict.fromkeys(DTYPES)))
    scaling = _known("inputs", settings.inputs, data.SCALINGS)
    make_optimizer = OPTIMIZERS[_known("optimizer", settings.optimizer, OPTIMIZERS)]
    model = model_file.load(settings.model)
    loss = model_file.choose("loss", settings.loss, model.losses, LOSS, model.name)
    init = model_file.choose("init", settings.init, model.schemes, SCHEME, model.name)
    assert loss is not None
    scaled = data.scaled(_sampled(loaded or data.load(settings.data), settings), scaling)

    inputs = scaled.train.inputs.astype(dtype)
    targets = np.eye(scaled.classes, dtype=dtype)[scaled.train.labels]
    batch_size = min(settings.batch_size, len(inputs))
    params = _drawn(model, settings, (inputs.shape[1], *settings.hidden, scaled.classes), init, dtype)
    model_file.check(model, loss, params, jnp.asarray(inputs[:batch_size]), jnp.asarray(targets[:batch_size]))

    optimizer = make_optimizer(settings.lr)
    step = make_step(model.apply, model.losses[loss], optimizer)
    steps_per_epoch = math.ceil(len(inputs) / batch_size)
    return Ready(
        data=scaled,
        model=model,
        loss=loss,
        init=init,
        dtype=dtype,
        inputs=inputs,
        targets=targets,
        batch_size=batch_size,
        params=params,
        state=optimizer.init(params),
        step=jax.jit(step, static_argnames=("full",)) if settings.jit else step,
        steps_per_epoch=steps_per_epoch,
        steps=_steps(settings, steps_per_epoch),
    )


def parameters(ready: Ready, settings: TrainSettings, init: str | None) -> Pytree:
    """The parameters of a run, drawn by another scheme under the same seed."""
    sizes = (ready.inputs.shape[1], *settings.hidden, ready.data.classes)
    return _drawn(ready.model, settings, sizes, init, ready.dtype)


def _drawn(model: Model, settings: TrainSettings, sizes: tuple[int, ...], init: str | None, dtype: jnp.dtype) -> Pytree:
    return model_file.initial(model, jax.random.key(settings.seed), sizes, init, dtype)


def batches(ready: Ready, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mini-batches without end, every epoch in a new order.

    The last batch of an epoch is filled up from the epoch's beginning: all are of one size, so that the step compiles once.
    """
    rng = np.random.default_rng(seed)
    count = len(ready.inputs)
    while True:
        order = np.resize(rng.permutation(count), ready.steps_per_epoch * ready.batch_size)
        for rows in order.reshape(-1, ready.batch_size):
            yield ready.inputs[rows], ready.targets[rows]


def _steps(settings: TrainSettings, steps_per_epoch: int) -> float:
    if settings.epochs is not None:
        return settings.epochs * steps_per_epoch
    return math.inf if settings.time_limit is not None else settings.steps or STEPS


def _known(option: str, name: str, table: Mapping[str, object]) -> str:
    if name not in table:
        raise UsageError(f"--{option} {name} is not known; give {', '.join(list(table)[:-1])} or {list(table)[-1]}")
    return name


def _sampled(whole: Data, settings: TrainSettings) -> Data:
    """The data with only `settings.samples` training samples, of every class alike."""
    if settings.samples is None:
        return whole
    if settings.samples > len(whole.train):
        raise UsageError(f"--samples {settings.samples}: {whole.name} has {len(whole.train)} training samples; give that many or fewer")
    rows = stratified(whole.train.labels, settings.samples, np.random.default_rng(settings.seed))
    return Data(name=whole.name, train=whole.train.take(rows), held_out=whole.held_out, classes=whole.classes)
