"""Images and labels from an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nandetect.data.dataset import Data, data, labelled
from nandetect.errors import UsageError

# Names that people give to (images, labels): of the training part, of the held-out part, and of all samples together.
_TRAIN = (("x_train", "y_train"), ("train_images", "train_labels"))
_TEST = (("x_test", "y_test"), ("test_images", "test_labels"))
_ALL = (("images", "labels"), ("inputs", "labels"), ("x", "y"), ("X", "y"), ("data", "target"))


def load(path: Path) -> Data:
    """The data in the arrays `images` and `labels`, or `x_train`, `y_train`, `x_test` and `y_test`, or in others of usual names."""
    arrays = _read(path)
    train = _pair(arrays, (*_TRAIN, *_ALL))
    if train is None:
        raise UsageError(f"{path} has {', '.join(sorted(arrays)) or 'no arrays'}; it should have `images` and `labels`, or `x` and `y`")
    test = _pair(arrays, _TEST)
    name = str(path)
    return data(name, labelled(*train, name), labelled(*test, name) if test else None)


def _pair(arrays: Mapping[str, np.ndarray], names: tuple[tuple[str, str], ...]) -> tuple[np.ndarray, np.ndarray] | None:
    return next(((arrays[images], arrays[labels]) for images, labels in names if images in arrays and labels in arrays), None)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        # The file is opened here, since `np.load` leaves one open that turns out to be no zip.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path} is not a readable .npz file of plain arrays: {error}; write it with numpy.savez") from error
