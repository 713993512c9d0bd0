"""The vitals of a step: what is measured of it, and of which steps. No JAX here."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import numpy as np

    from nandetect.annotations import Array

# Measures of a leaf, one column each of `float32[L, len(LAYERS)]`. Norms are l2, of the finite elements, computed in float32 at least.
LAYERS = {
    "gradient": "the norm of the gradient",
    "gradient_max": "its largest magnitude",
    "gradient_zero": "the share of its elements that are exactly 0",
    "gradient_tiny": "the share that is not 0 but below the dtype's smallest normal number; NaN for dtypes of 32 bits and more",
    "gradient_idle": "the share of units (slices along the last axis) whose whole gradient is 0; NaN for a leaf of fewer than 2 axes",
    "gradient_nonfinite": "how many of its elements are not finite; 1 for any where only the norm was measured",
    "weight": "the norm of the parameters",
    "weight_max": "their largest magnitude",
    "weight_nonfinite": "1 where any of them is not finite, else 0",
    "update": "the norm of the update",
    "update_zero": "the share of the parameters that the update leaves exactly as they are",
}
# Measures of the whole step, one number each, beside the total norms.
WHOLE = {
    "along": "the gradient times this step's update: how fast the loss falls where the step begins",
    "along_before": "the gradient times the step's update before: how fast the loss still fell where that step ended",
}
# The columns whose total over all leaves is a series of the same name.
TOTALS = ("gradient", "weight", "update")

# The number for what was not measured: a NaN would look like a fault to a guard that watches what the program returns.
MISSING = -3.4028234663852886e38
# The least sum of squares that is trusted: in a smaller one elements may be missing whose squares are 0 in float32.
LEAST = 1e-30

# The steps of which everything is measured: the first `_DENSE`; up to `_SETTLED` two in a row of every `_OFTEN`; later two in a row of
# every `_SELDOM`. Two in a row, since
# a step's `along` is compared with the next one's `along_before`. Of the other steps only the gradients' norms are measured.
_DENSE, _SETTLED, _OFTEN, _SELDOM = 20, 400, 20, 100


@overload
def is_full(step: int) -> bool: ...
@overload
def is_full(step: Array | np.number | float) -> Array | np.bool_ | bool: ...
def is_full(step: Array | np.number | float) -> Array | np.bool_ | bool:
    """Whether everything is measured of a step, the steps counted from 0. Of a number on the device the answer is on the device too."""
    return (step < _DENSE) | ((step < _SETTLED) & ((step + 1) % _OFTEN < 2)) | ((step + 1) % _SELDOM < 2)
