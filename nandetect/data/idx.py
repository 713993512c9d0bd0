"""IDX files, the format of MNIST and its family: a type, the sizes of the axes, then the numbers, big-endian; compressed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from nandetect.data.dataset import Data, Part, data, labelled
from nandetect.errors import UsageError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load(directory: Path) -> Data:
    """The data in a directory: a training part and a held-out one. Where only one of them is there, a fifth of it is held out."""
    train, test = _split(directory, "train"), _split(directory, "t10k")
    if train and test:
        return data(str(directory), train, test)
    only_part = train or test
    if only_part:
        return data(str(directory), only_part)
    raise UsageError(f"{directory} has no IDX files: it should have train-images-idx3-ubyte and train-labels-idx1-ubyte, or the same .gz")


def _split(directory: Path, split: str) -> Part | None:
    images, labels = _find(directory, f"{split}-images"), _find(directory, f"{split}-labels")
    if images and labels:
        return labelled(read(images), read(labels), str(images))
    only_file = images or labels
    if only_file:
        raise UsageError(f"{directory} has {only_file.name} but no {split}-{'labels' if images else 'images'} beside it")
    return None


def _find(directory: Path, stem: str) -> Path | None:
    """The one file of that stem, the uncompressed one where there are both; None where there is no such file."""
    files = sorted(file for file in directory.glob(f"*{stem}*idx*") if file.name.endswith((".gz", "-ubyte")))
    if len({file.name.removesuffix(".gz") for file in files}) > 1:
        raise UsageError(f"{directory} has {len(files)} files of {stem} ({', '.join(file.name for file in files)}); leave one")
    return files[0] if files else None


def read(path: Path) -> np.ndarray:
    """The array in an IDX file, compressed or not; a file that is cut short or otherwise broken is refused."""
    content = _content(path)
    if len(content) < 4:
        raise UsageError(f"{path} is cut short: it has {len(content)} bytes, fewer than an IDX header; fetch it again")
    zero, kind, axes = struct.unpack(">HBB", content[:4])
    if zero != 0 or kind not in _TYPES or axes == 0:
        raise UsageError(f"{path} is not an IDX file: it begins with {content[:4].hex(' ')}")
    start = 4 + 4 * axes
    if len(content) < start:
        raise UsageError(f"{path} is cut short: it ends within its header; fetch it again")
    shape = struct.unpack(f">{axes}I", content[4:start])
    dtype = np.dtype(_TYPES[kind])
    expected = math.prod(shape) * dtype.itemsize
    if len(content) - start != expected:
        raise UsageError(f"{path} is corrupt: its header promises {expected} bytes and {len(content) - start} follow; fetch it again")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is not a whole gzip file: {error}; fetch it again") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
