"""What is measured of a step, and of which steps. No JAX here."""

from __future__ import annotations

from typing import Any

# One column each of `float32[L, len(LAYERS)]`; l2 norms, of the finite elements, computed in float32 at least.
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
# One number each for the whole step, beside the total norms.
WHOLE = {
    "along": "the gradient times this step's update: how fast the loss falls where the step begins",
    "along_before": "the gradient times the step's update before: how fast the loss still fell where that step ended",
}
# The columns whose total over all leaves is a series of the same name.
TOTALS = ("gradient", "weight", "update")

# Stands in the program for what was not measured: a NaN would look like a fault to whoever watches what the program returns.
MISSING = -3.4028234663852886e38
# A sum of squares below this may have lost elements whose squares are 0 in float32.
LEAST = 1e-30

# Of the first steps everything is measured; later of two in a row (so that a step's `along` stands before the next one's `along_before`)
# of so many, and of the others only the gradients' norms.
_DENSE, _SETTLED, _OFTEN, _SELDOM = 20, 400, 20, 100


def is_full(step: Any) -> Any:
    """Whether everything is measured of a step, the steps counted from 0; of a number on the device, as a number there."""
    return (step < _DENSE) | ((step < _SETTLED) & ((step + 1) % _OFTEN < 2)) | ((step + 1) % _SELDOM < 2)
