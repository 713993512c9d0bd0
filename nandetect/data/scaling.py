"""The scaling of pixels before the model sees them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nandetect.data.dataset import Data, Part


def _raw(pixels: np.ndarray) -> tuple[float, float]:
    return 0.0, 1.0


def _unit(pixels: np.ndarray) -> tuple[float, float]:
    return 0.0, float(np.abs(pixels).max(initial=0.0)) or 1.0


def _standard(pixels: np.ndarray) -> tuple[float, float]:
    return (float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64)) or 1.0) if pixels.size else (0.0, 1.0)


# Scalings by name: from the training pixels to what is subtracted and what divides. All pixels are taken together, since one that is 0 in
# every image has no deviation of its own to divide by.
SCALINGS: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {"raw": _raw, "unit": _unit, "standard": _standard}


def scaled(data: Data, scaling: str) -> Data:
    """The data as floats: `raw` as they are, `unit` within -1..1, `standard` with mean 0 and deviation 1."""
    pixels = data.train.inputs
    # Pixels that are not finite are left out: a NaN in the data is for the report to find, and must not spread to all pixels from here.
    shift, scale = SCALINGS[scaling](pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels)

    def apply(part: Part) -> Part:
        return Part((part.inputs.astype(np.float32) - np.float32(shift)) / np.float32(scale), part.labels)

    return Data(name=data.name, train=apply(data.train), held_out=apply(data.held_out), classes=data.classes)
