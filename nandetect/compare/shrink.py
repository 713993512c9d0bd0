"""The smallest input that still shows a fault: fewer rows and classes, zeros, round numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nandetect.compare.judged import Judged
from nandetect.compare.ordinary import Args
from nandetect.compare.parameters import Scene

Shows = Callable[[Judged, Args], bool]
DIGITS = (2, 3, 4)
MOST_TRIALS = 120


def smallest(judged: Judged, args: Args, shows: Shows, judged_for: Callable[[Scene], Judged]) -> tuple[Judged, Args]:
    """The function in the smallest shape, and the arguments with the roundest numbers, that still show a fault."""
    for shape, slice_args in _slices(judged.runner.scene, args):
        try:
            smaller = judged_for(judged.runner.scene.reshaped(shape))
            if shows(smaller, slice_args):
                judged, args = smaller, slice_args
                break
        # A smaller shape may be refused: a function may want the very shape that it was given, and say so by any error.
        except Exception:
            continue
    return judged, rounder(args, lambda trial: shows(judged, trial), judged.runner.scene.movable)


def _slices(scene: Scene, args: Args) -> Iterator[tuple[tuple[int, ...], Args]]:
    """Smaller inputs to try: two columns of one row, then the whole row; of the row that spreads most, then of the smallest."""
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
    """Two columns of a row: those where the arguments are largest, then the first ones."""
    columns: list[int] = []
    for arg, shape in zip(args, scene.shapes, strict=True):
        if shape == scene.shape:
            magnitudes = np.abs(np.asarray(arg, float).reshape(-1, shape[-1])[row])
            columns.append(int(np.argmax(magnitudes)))
    columns = list(dict.fromkeys(columns))
    columns += [column for column in range(scene.shape[-1]) if column not in columns][: max(0, 2 - len(columns))]
    return columns[:2]


def _cut(scene: Scene, args: Args, row: int, columns: list[int]) -> tuple[tuple[int, ...], Args]:
    shape = (1,) * (len(scene.shape) - 1) + (len(columns),)
    out: Args = []
    for arg, arg_shape in zip(args, scene.shapes, strict=True):
        arg = np.asarray(arg)
        if arg_shape == scene.shape:
            out.append(arg.reshape(-1, arg_shape[-1])[row][columns].reshape(shape))
        elif arg_shape == scene.shape[:-1] and arg_shape:
            label = arg.reshape(-1)[row]
            out.append(np.full(shape[:-1], columns.index(int(label)) if label in columns else 0, arg.dtype))
        elif arg_shape == scene.shape[:-1]:
            out.append(np.asarray(columns.index(int(arg)) if arg in columns else 0, arg.dtype))
        else:
            out.append(arg)
    return shape, out


def rounder(args: Args, shows: Callable[[Args], bool], which: Sequence[int]) -> Args:
    """The arguments, those at the positions `which` with as many zeros and as few digits as still show the fault."""
    args, trials = [np.array(arg, float) if position in which else arg for position, arg in enumerate(args)], 0
    for arg in (args[position] for position in which):
        if arg.size > 64:
            continue
        for index in np.ndindex(arg.shape):
            original = arg[index]
            for candidate in _simpler(float(original)):
                trials += 1
                if trials > MOST_TRIALS:
                    arg[index] = original
                    return args
                arg[index] = candidate
                if shows(args):
                    break
                arg[index] = original
    return args


def _simpler(x: float) -> Iterator[float]:
    """Simpler numbers to try: zero, then x rounded to more and more digits, each with its neighbours."""
    if x == 0:
        return
    yield 0.0
    for digits in DIGITS:
        short = float(f"{x:.{digits}g}")
        step = 10.0 ** (np.floor(np.log10(abs(x))) - digits + 1)
        for candidate in dict.fromkeys((short, short + np.copysign(step, x), short - np.copysign(step, x))):
            if candidate and candidate != x:
                yield float(f"{candidate:.{digits + 1}g}")
