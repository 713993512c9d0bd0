"""The records of a run of `nandetect train`: its settings, how it stood at a step, and its result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nandetect.errors import UsageError
from nandetect.monitor.explosion import Explosion
from nandetect.records import Finding
from nandetect.targets.defaults import BATCH_SIZE, HIDDEN

Stopped = Literal["finished", "interrupted", "non-finite"]
DTYPES = ("float32", "bfloat16", "float16", "float64")
STEPS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train. `loss` and `init` left out are the model file's; `dtype` left out is float32, float64 with `x64`."""

    model: str = "mlp"
    data: str = "digits"
    samples: int | None = None
    inputs: str = "raw"
    hidden: tuple[int, ...] = HIDDEN
    loss: str | None = None
    init: str | None = None
    optimizer: str = "adam"
    lr: float = 0.004
    batch_size: int = BATCH_SIZE
    epochs: int | None = None
    steps: int | None = None
    time_limit: float | None = None
    seed: int = 0
    jit: bool = True
    x64: bool = False
    dtype: str | None = None
    debug_nans: bool = False
    audit: bool = True

    def __post_init__(self) -> None:
        """Raises `UsageError` for settings that no run can be made of."""
        counts = {"batch-size": self.batch_size, "samples": self.samples, "epochs": self.epochs, "steps": self.steps}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UsageError(f"--{name} {count}: give 1 or more")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"--lr {self.lr:g}: give a learning rate above 0")
        if any(width < 1 for width in self.hidden):
            raise UsageError(f"--hidden {','.join(map(str, self.hidden))}: give widths of 1 or more")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: give 0 to {2**32 - 1}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise UsageError(f"--time-limit {self.time_limit:g}s: give a time above 0")
        if sum(limit is not None for limit in (self.epochs, self.steps, self.time_limit)) > 1:
            raise UsageError("--epochs, --steps and --time-limit each say when to stop: give one of them")
        if self.dtype == "float64" and not self.x64:
            raise UsageError("--dtype float64 needs --x64: without it JAX computes in float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How a run stood at a step, counted from 0. Its loss was read some steps later, so that no step had to wait for it."""

    step: int
    epoch: float
    loss: float
    accuracy: float
    gradient_norm: float
    steps_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """When a run reached a goal: `epoch` and `steps` counted from 1, and the `seconds` it had trained for, compiling left out."""

    epoch: int
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InitCost:
    """What a run's initial scale cost, against a twin: the same run with parameters drawn by `scheme`.

    The run reached its goal in `epoch`. The goal is an epoch with every training sample right or, in a run that never had one (`loss` is
    then not None), its lowest mean loss. The twin reached it in `twin_epoch`, None where it did not within `twin_epochs`; `complete` is
    False where the twin's time was over before either could be told.
    """

    scheme: str
    epoch: int
    loss: float | None
    twin_epoch: int | None
    twin_epochs: float
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run did.

    `accuracy` is that of the final parameters. A run that a non-finite value stopped has none: its `steps` are the sound ones before that
    value, `loss` and `gradient_norm` those of the last sound step. `findings` begins with those made before the first step. `toll` is the
    cost of a wrong initial scale, where that could be told; `explosion` is how the gradient exploded, where it did.
    """

    stopped: Stopped
    data: str
    model: str
    loss_name: str
    init: str | None
    dtype: str
    train_samples: int
    held_out_samples: int
    parameters: int
    steps: int
    epochs: float
    seconds: float
    compile_seconds: float | None
    steps_per_second: float | None
    loss: float | None
    gradient_norm: float | None
    accuracy: float | None
    held_out_accuracy: float | None
    overfit: Reached | None
    toll: InitCost | None = None
    explosion: Explosion | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a fault was found, and not only what could be better."""
        return any(finding.severity == "error" for finding in self.findings)
