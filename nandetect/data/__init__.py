"""Images and labels to train on: the embedded digits, MNIST, a directory of IDX files, or arrays in an .npz file."""

from __future__ import annotations

from pathlib import Path

from nandetect.data.dataset import Data, Part
from nandetect.data.scaling import SCALINGS, scaled
from nandetect.errors import UsageError

__all__ = ["SCALINGS", "Data", "Part", "load", "scaled"]


def load(where: str) -> Data:
    """The data that `--data` names."""
    from nandetect.data import arrays, digits, idx, mnist

    if where == "digits":
        return digits.load()
    if where == "mnist":
        return mnist.load()
    path = Path(where)
    if path.is_dir():
        return idx.load(path)
    if path.suffix == ".npz":
        return arrays.load(path)
    if not path.exists():
        raise UsageError(f"there is no data {where}: give digits, mnist, a directory of IDX files or an .npz file")
    raise UsageError(f"{where} is neither a directory of IDX files nor an .npz file")
