"""Helpers for tests of a run's record: points whose numbers tell their step, and processes that write and read them. No JAX here."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

from nandetect.history import History, Leaf

LEAVES = (Leaf(path="dense.kernel", shape=(4, 3), dtype="float32"), Leaf(path="dense.bias", shape=(3,), dtype="float32"))


def piece(start: int, end: int, **series: float) -> History:
    """Points whose numbers tell their step, with `series` that are the same at each."""
    at = np.arange(start, end)
    whole = {"loss": at / 8, "gradient": at / 4, **{name: np.full(len(at), value) for name, value in series.items()}}
    layers = {"gradient": np.stack([at, at + 0.5], 1)}
    return History(leaves=LEAVES, steps=at, series=floats(whole), layers=floats(layers))


def floats(arrays: dict) -> dict:
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


_NAMES = "import os, sys, time\nfrom logbooks import *\nfrom nandetect.logbook import Logbook, read\n"


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process with these names."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{_NAMES}{textwrap.dedent(code)}"
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
