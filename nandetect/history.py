"""What has been seen of a run, as numpy arrays: what the rules read, the record keeps and the reports draw. No JAX here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One array of the parameters: its pytree path, written as a person would (`dense.kernel`, `layers[0].w`), its shape and dtype."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A run so far: T points in the order of their `steps` (int64[T], counted from 0), for the L `leaves` in pytree order.

    `series` are float32[T] each: `loss`, whatever other metrics were given, and of all leaves together `gradient`, `weight` and `update`
    (l2 norms), `along` and `along_before` (see `monitor.vitals`). `layers` are float32[T, L] each, by the names of `monitor.vitals.LAYERS`.
    NaN stands where something was not given or not measured at that step; a measured value that was not finite counts under
    `gradient_nonfinite`, and its norm is that of the finite elements.
    A long run is thinned: consecutive steps at its end, further apart before, with the extremes kept.
    """

    leaves: tuple[Leaf, ...] = ()
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    series: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)
