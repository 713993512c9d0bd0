"""What is measured of one step, inside the program: one small array for all leaves, one for the whole."""

from __future__ import annotations

# One column each of `float32[L, len(LAYERS)]`; l2 norms, of the finite elements, computed in float32 at least.
LAYERS = {
    "gradient": "the norm of the gradient",
    "gradient_max": "its largest magnitude",
    "gradient_zero": "the share of its elements that are exactly 0",
    "gradient_tiny": "the share that is not 0 but below the dtype's smallest normal number",
    "gradient_idle": "the share of units (slices along the last axis) whose whole gradient is 0; NaN for a leaf of fewer than 2 axes",
    "gradient_nonfinite": "how many of its elements are not finite",
    "weight": "the norm of the parameters",
    "weight_max": "their largest magnitude",
    "weight_nonfinite": "how many of them are not finite",
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

# How much of a step is measured: of most only the norms of the gradient, of every so many everything. Before a step of which everything is
# measured, `along` is too, so that it stands beside that step's `along_before`.
LIGHT, ALONG, FULL = 0, 1, 2
# Of the first steps, and then of one in so many, everything is measured.
DENSE, EVERY = 20, 20


def level(step: int) -> int:
    """How much of a step is measured, the steps counted from 0."""
    if step < DENSE or step % EVERY == 0:
        return FULL
    return ALONG if (step + 1) % EVERY == 0 else LIGHT
