"""Labelled samples, checked once, with some of every class held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nandetect.errors import UsageError

_HELD_OUT = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """Samples as rows, and the class of each."""

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Part:
        """The samples at these rows, in this order."""
        return Part(self.inputs[rows], self.labels[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Samples to train on, samples to hold out, and the number of classes."""

    name: str
    train: Part
    held_out: Part
    classes: int


def labelled(inputs: np.ndarray, labels: np.ndarray, name: str) -> Part:
    """Samples flattened to rows; anything that is not one number per pixel and one whole number per sample is refused."""
    if inputs.dtype.kind not in "buif" or inputs.ndim < 2:
        raise UsageError(f"{name}: the images are {_kind(inputs)}; they should be numbers with the samples along the first axis")
    if labels.ndim != 1 or labels.dtype.kind not in "buif" or not np.array_equal(labels, np.trunc(labels)):
        raise UsageError(f"{name}: the labels are {_kind(labels)}; they should be one whole number for each sample")
    if len(inputs) != len(labels):
        raise UsageError(f"{name}: there are {len(inputs)} images and {len(labels)} labels; there should be one label for each image")
    if inputs.size == 0:
        raise UsageError(f"{name}: there are no samples in it")
    return Part(inputs.reshape(len(inputs), -1), labels.astype(np.int64))


def data(name: str, train: Part, held_out: Part | None = None) -> Data:
    """The data with its labels checked; without a held-out part, a fifth of every class is held out."""
    labels = train.labels if held_out is None else np.concatenate([train.labels, held_out.labels])
    classes = _classes(labels, name)
    if held_out is None:
        rows = stratified(train.labels, max(round(len(train) * _HELD_OUT), classes), np.random.default_rng(0))
        train, held_out = train.take(np.setdiff1d(np.arange(len(train)), rows)), train.take(rows)
    if train.inputs.shape[1] != held_out.inputs.shape[1]:
        raise UsageError(f"{name}: training images have {train.inputs.shape[1]} pixels and held-out ones {held_out.inputs.shape[1]}")
    for purpose, part in (("train on", train), ("hold out", held_out)):
        missing = np.setdiff1d(np.arange(classes), part.labels)
        if missing.size:
            raise UsageError(f"{name}: label {missing[-1]} has no sample to {purpose}; is it out of range?")
    return Data(name=name, train=train, held_out=held_out, classes=classes)


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _classes(labels: np.ndarray, name: str) -> int:
    """The number of classes: one more than the largest label. Raises `UsageError` where a class has no sample, or there is only one."""
    classes = np.unique(labels)
    if classes[0] < 0:
        raise UsageError(f"{name}: label {classes[0]} is out of range; labels should be 0 to one less than the number of classes")
    if len(classes) < 2:
        raise UsageError(f"{name}: every sample has label {classes[0]}; there should be at least two classes")
    gaps = np.flatnonzero(classes != np.arange(len(classes)))
    if gaps.size:
        raise UsageError(f"{name}: label {classes[-1]} is out of range: no sample has label {gaps[0]}; labels should be 0, 1, 2 and so on")
    return len(classes)


def stratified(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `count` samples in the proportions of the classes, at least one of each where `count` allows."""
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        # Ranks: the first sample of every class comes before all others, which are spread evenly over 0..1 for each class.
        rank[rows] = np.concatenate([[-1.0], (np.arange(1, len(rows)) + 0.5) / len(rows)])
    return np.sort(order[np.argsort(rank[order], kind="stable")][:count])
