"""Pieces of a history: joined, cut, and as the bytes that the file holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nandetect.history import History, Leaf


class Packed(NamedTuple):
    """A piece of a history as a row of the file: `numbers` are little-endian float32, the series first, then the layers."""

    first: int
    last: int
    points: int
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
        series=json.dumps(list(piece.series)),
        layers=json.dumps(list(piece.layers)),
        steps=np.asarray(piece.steps, "<i8").tobytes(),
        numbers=b"".join(np.asarray(array, "<f4").tobytes() for array in arrays),
    )


def unpack(packed: Packed, leaves: tuple[Leaf, ...]) -> History:
    """What `pack` was given."""
    points, width = packed.points, len(leaves)
    series, layers = json.loads(packed.series), json.loads(packed.layers)
    numbers = np.frombuffer(packed.numbers, "<f4")
    whole, each = numbers[: len(series) * points], numbers[len(series) * points :]
    return History(
        leaves=leaves,
        steps=np.frombuffer(packed.steps, "<i8"),
        series=dict(zip(series, whole.reshape(len(series), points), strict=True)),
        layers=dict(zip(layers, each.reshape(len(layers), points, width), strict=True)),
    )


def join(pieces: Sequence[History], leaves: tuple[Leaf, ...]) -> History:
    """The pieces as one; NaN where a piece lacks what another has."""
    if not pieces:
        return History(leaves=leaves)
    return History(
        leaves=leaves,
        steps=np.concatenate([piece.steps for piece in pieces]),
        series=_joined([piece.series for piece in pieces], [(len(piece),) for piece in pieces]),
        layers=_joined([piece.layers for piece in pieces], [(len(piece), len(leaves)) for piece in pieces]),
    )


def take(history: History, points: np.ndarray | slice) -> History:
    """The history at some of its points."""
    return History(
        leaves=history.leaves,
        steps=history.steps[points],
        series={name: array[points] for name, array in history.series.items()},
        layers={name: array[points] for name, array in history.layers.items()},
    )


def _joined(given: Sequence[Mapping[str, np.ndarray]], shapes: Sequence[tuple[int, ...]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for one in given for name in one)
    return {
        name: np.concatenate(
            [
                np.asarray(one[name], np.float32) if name in one else np.full(shape, np.nan, np.float32)
                for one, shape in zip(given, shapes, strict=True)
            ]
        )
        for name in names
    }
