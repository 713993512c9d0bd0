"""Pieces of a history as bytes in the rows of the file, and back."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

import numpy as np

from nandetect.history import History, Leaf


class Packed(NamedTuple):
    """A piece of a history as a row of the file.

    `numbers` holds the series and then the layers: for each one bit a point that says whether anything was measured there, padded to whole
    bytes, and the points where it was as little-endian float32. This saves space, as a monitor measures most columns only now and then.
    """

    first: int
    last: int
    points: int
    width: int
    series: str
    layers: str
    steps: bytes
    numbers: bytes


def pack(piece: History) -> Packed:
    """The piece, which has one point at least, as bytes."""
    arrays = [*piece.series.values(), *piece.layers.values()]
    return Packed(
        first=int(piece.steps[0]),
        last=int(piece.steps[-1]),
        points=len(piece),
        width=len(piece.leaves),
        series=json.dumps(list(piece.series)),
        layers=json.dumps(list(piece.layers)),
        steps=np.asarray(piece.steps, "<i8").tobytes(),
        numbers=b"".join(_measured(np.asarray(array, "<f4")) for array in arrays),
    )


def _measured(array: np.ndarray) -> bytes:
    is_measured = ~np.isnan(array.reshape(len(array), -1)).all(axis=1)
    return np.packbits(is_measured).tobytes() + array[is_measured].tobytes()


def unpack(packed: Packed, leaves: tuple[Leaf, ...]) -> History:
    """The piece that `pack` was given."""
    points, offset = packed.points, 0
    bits = (points + 7) // 8

    def next_array(*width: int) -> np.ndarray:
        nonlocal offset
        is_measured = np.unpackbits(np.frombuffer(packed.numbers, np.uint8, bits, offset), count=points).astype(bool)
        shape = (int(is_measured.sum()), *width)
        array = np.full((points, *width), np.nan, np.float32)
        array[is_measured] = np.frombuffer(packed.numbers, "<f4", math.prod(shape), offset + bits).reshape(shape)
        offset += bits + 4 * math.prod(shape)
        return array

    return History(
        leaves=leaves,
        steps=np.frombuffer(packed.steps, "<i8"),
        series={name: next_array() for name in json.loads(packed.series)},
        layers={name: next_array(packed.width) for name in json.loads(packed.layers)},
    )
