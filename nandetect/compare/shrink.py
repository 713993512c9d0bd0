"""The smallest input that still shows a fault: fewer rows and classes, zeros, round numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nandetect.compare.judged import Judged
from nandetect.compare.ordinary import Args
from nandetect.compare.parameters import Scene
from nandetect.errors import UsageError

Shows = Callable[[Judged, Args], bool]
DIGITS = (2, 3, 4)
MOST_TRIALS = 120


def smallest(judged: Judged, args: Args, shows: Shows, judged_for: Callable[[Scene], Judged]) -> tuple[Judged, Args]:
    """The function in the smallest shape, and the arguments with the roundest numbers, that still show a fault."""
    for shape, taken in _slices(judged.runner.scene, args):
        try:
            smaller = judged_for(judged.runner.scene.reshaped(shape))
            if shows(smaller, taken):
                judged, args = smaller, taken
                break
        # A function may want the very shape that it was given.
        except UsageError:
            continue
    return judged, rounder(args, lambda trial: shows(judged, trial), judged.runner.scene.movable)


def _slices(scene: Scene, args: Args) -> Iterator[tuple[tuple[int, ...], Args]]:
    """One row with two columns, then one row, of the rows and columns where the swept array is largest."""
    rank = len(scene.shape)
    if scene.given is not None or rank not in (1, 2):
        return
    width = scene.shape[-1]
    swept = np.asarray(args[0], float).reshape(-1, width)
    widest, smallest = int(np.argmax(np.ptp(swept, -1))), int(np.argmin(np.abs(swept).max(-1)))
    for row in dict.fromkeys((widest, smallest)):
        columns = _columns(scene, args, row)
        if len(columns) < width:
            yield _cut(scene, args, row, columns)
        if rank == 2 and scene.shape[0] > 1:
            yield _cut(scene, args, row, list(range(width)))


def _columns(scene: Scene, args: Args, row: int) -> list[int]:
    """The largest element of every argument in a row; two at least."""
    wanted: list[int] = []
    for arg, shape in zip(args, scene.shapes, strict=True):
        if shape == scene.shape:
            line = np.abs(np.asarray(arg, float).reshape(-1, shape[-1])[row])
            wanted.append(int(np.argmax(line)))
    wanted = list(dict.fromkeys(wanted))
    wanted += [column for column in range(scene.shape[-1]) if column not in wanted][: max(0, 2 - len(wanted))]
    return wanted[:2]


def _cut(scene: Scene, args: Args, row: int, columns: list[int]) -> tuple[tuple[int, ...], Args]:
    shape = (1,) * (len(scene.shape) - 1) + (len(columns),)
    out: Args = []
    for arg, old in zip(args, scene.shapes, strict=True):
        arg = np.asarray(arg)
        if old == scene.shape:
            out.append(arg.reshape(-1, old[-1])[row][columns].reshape(shape))
        elif old == scene.shape[:-1] and old:
            label = arg.reshape(-1)[row]
            out.append(np.full(shape[:-1], columns.index(int(label)) if label in columns else 0, arg.dtype))
        elif old == scene.shape[:-1]:
            out.append(np.asarray(columns.index(int(arg)) if arg in columns else 0, arg.dtype))
        else:
            out.append(arg)
    return shape, out


def rounder(args: Args, shows: Callable[[Args], bool], which: Sequence[int]) -> Args:
    """The arguments, those of `which` with as many zeros and as few digits as still show the fault; labels stay labels."""
    args, trials = [np.array(arg, float) if position in which else arg for position, arg in enumerate(args)], 0
    for arg in (args[position] for position in which):
        if arg.size > 64:
            continue
        for index in np.ndindex(arg.shape):
            kept = arg[index]
            for candidate in _simpler(float(kept)):
                trials += 1
                if trials > MOST_TRIALS:
                    arg[index] = kept
                    return args
                arg[index] = candidate
                if shows(args):
                    break
                arg[index] = kept
    return args


def _simpler(x: float) -> Iterator[float]:
    """Zero, then the number in more and more digits, to either side."""
    if x == 0:
        return
    yield 0.0
    for digits in DIGITS:
        short = float(f"{x:.{digits}g}")
        step = 10.0 ** (np.floor(np.log10(abs(x))) - digits + 1)
        for candidate in dict.fromkeys((short, short + np.copysign(step, x), short - np.copysign(step, x))):
            if candidate and candidate != x:
                yield float(f"{candidate:.{digits + 1}g}")
