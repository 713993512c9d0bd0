"""What an audit found: a row for each kernel, the findings, and what one batch showed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nandetect.records import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kernel: `std` is the root of its second moment, `wanted` what `scheme` (or, where none fits, the scheme it was judged by) wants.

    `follows` is what its product goes into, empty where no program was given. `forward` and `backward` are the second moments of the signal
    and the gradient at its product (see `audit.signal`), NaN where they were not measured; `idle` is the share of dead or saturated units.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    fan_in: int
    fan_out: int
    follows: str = ""
    std: float = 0.0
    wanted: float | None = None
    scheme: str = ""
    is_off: bool = False
    forward: float = math.nan
    backward: float = math.nan
    idle: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The kernels in the order of the program (of the pytree where there is none), the findings, and the loss at the start beside ln C.

    `unseen` says why the signal could not be followed, where it could not."""

    layers: tuple[Layer, ...] = ()
    findings: tuple[Finding, ...] = ()
    loss: float | None = None
    chance: float | None = None
    parameters: int = 0
    unseen: str = ""
