"""Histories of runs, written by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from nandetect.history import History, Leaf

_SIZES = (64, 32, 32, 10)
LEAVES = tuple(
    Leaf(path=f"layers[{i}].{name}", shape=shape, dtype="float32")
    for i, (m, n) in enumerate(itertools.pairwise(_SIZES))
    for name, shape in (("b", (n,)), ("w", (m, n)))
)
KERNELS, BIASES = [1, 3, 5], [0, 2, 4]


def history(steps: int = 300, leaves: tuple[Leaf, ...] = LEAVES, **changes: Any) -> History:
    """A healthy run of an MLP on 10 classes with He's initial scale: its loss falls from 2.5 to 0.1, its inputs have size 1.

    `changes` replace a series or a column (an array that broadcasts to all points), by name.
    """
    rng = np.random.default_rng(0)
    t = np.arange(steps)
    fall = np.exp(-t / steps * 3.2)
    weight = np.array([math.sqrt(2 / m) * math.sqrt(m * n) if name == "w" else 1.0 for name, m, n in _shapes(leaves)])
    gradient = np.array([math.sqrt(m) if name == "w" else 1.0 for name, m, n in _shapes(leaves)]) * 0.1
    noise = np.exp(0.15 * rng.normal(size=(steps, 1)))
    columns = {
        "gradient": gradient * fall[:, None] * noise,
        "gradient_max": 0.1 * gradient * fall[:, None],
        "gradient_zero": np.full((1, len(leaves)), 0.02),
        "gradient_tiny": np.zeros((1, len(leaves))),
        "gradient_idle": np.array([[0.05 if name == "w" else np.nan for name, m, n in _shapes(leaves)]]),
        "gradient_nonfinite": np.zeros((1, len(leaves))),
        "weight": weight * (1 + 0.1 * t[:, None] / steps),
        "weight_max": np.full((1, len(leaves)), 0.5),
        "weight_nonfinite": np.zeros((1, len(leaves))),
        "update": 2e-3 * weight * fall[:, None],
        "update_zero": np.zeros((1, len(leaves))),
    }
    columns = {
        name: np.array(np.broadcast_to(changes.pop(name, column), (steps, len(leaves))), np.float32) for name, column in columns.items()
    }
    series = {
        "loss": 2.5 * fall * np.exp(0.05 * rng.normal(size=steps)),
        "gradient": _total(columns["gradient"]),
        "weight": _total(columns["weight"]),
        "update": _total(columns["update"]),
        "along": -1e-3 * fall,
        "along_before": np.full(steps, -1e-4) * fall,
    }
    series = {name: np.array(np.broadcast_to(changes.pop(name, column), steps), np.float32) for name, column in series.items()}
    assert not changes
    return History(leaves=leaves, steps=t, series=series, layers=columns)


def _total(norms):
    return np.sqrt(np.square(norms, dtype=np.float64).sum(1))


def _shapes(leaves):
    return [("w", *leaf.shape) if len(leaf.shape) == 2 else ("b", leaf.shape[0], leaf.shape[0]) for leaf in leaves]
