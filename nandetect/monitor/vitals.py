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
    "update": "the norm of the update",
}
# One number each for the whole step, beside the total norms.
WHOLE = {
    "along": "the gradient times this step's update: how fast the loss falls where the step begins",
    "along_before": "the gradient times the step's update before: how fast the loss still fell where that step ended",
}
