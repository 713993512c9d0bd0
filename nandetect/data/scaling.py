"""What is done to the pixels before the model sees them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nandetect.data.dataset import Data, Part


def _raw(known: np.ndarray) -> tuple[float, float]:
    return 0.0, 1.0


def _unit(known: np.ndarray) -> tuple[float, float]:
    return 0.0, float(np.abs(known).max(initial=0.0)) or 1.0


def _standard(known: np.ndarray) -> tuple[float, float]:
    return (float(known.mean(dtype=np.float64)), float(known.std(dtype=np.float64)) or 1.0) if known.size else (0.0, 1.0)


# Name -> (what is subtracted, what divides), from all the training pixels together: a pixel that is 0 in every image
# has no deviation of its own to divide by.
SCALINGS: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {"raw": _raw, "unit": _unit, "standard": _standard}


def scaled(data: Data, scaling: str) -> Data:
    """The data as floats: `raw` as they are, `unit` within -1..1, `standard` with mean 0 and deviation 1."""
    pixels = data.train.inputs
    # A NaN in the data is for the report to find; it should not spread to every other pixel from here.
    shift, scale = SCALINGS[scaling](pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels)

    def apply(part: Part) -> Part:
        return Part((part.inputs.astype(np.float32) - np.float32(shift)) / np.float32(scale), part.labels)

    return Data(name=data.name, train=apply(data.train), held_out=apply(data.held_out), classes=data.classes)
