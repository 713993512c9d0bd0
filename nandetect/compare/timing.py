"""The times of compiled calls of both functions, taken in turns, so that other work on the machine slows both alike."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import numpy as np

from nandetect.compare.ordinary import example
from nandetect.compare.pair import Loss, Side
from nandetect.compare.parameters import Scene
from nandetect.compare.results import Ratio, Timing
from nandetect.compare.scene import check
from nandetect.errors import UsageError

# Rows of the batch that is timed, where the functions take one: on few numbers the call itself would take most of the time.
ROWS = 2048
ROUNDS = 31
# Seconds that a turn of one function takes, roughly.
TURN = 0.004


def timing(sides: tuple[Side, Side], scene: Scene, dtype: np.dtype) -> Timing:
    """The times of a call forward, and of one that gives value and gradient."""
    scene = _larger(sides, scene, dtype)
    args = [jax.numpy.asarray(arg) for arg in scene.cast(example(scene), dtype)]
    forward = [jax.jit(side.function) for side in sides]
    backward = [jax.jit(jax.value_and_grad(side.function)) for side in sides]
    return Timing(shape=scene.shape, forward=_ratio(forward, args), backward=_ratio(backward, args))


def _larger(sides: tuple[Side, Side], scene: Scene, dtype: np.dtype) -> Scene:
    """The scene with a large batch, where both functions take one."""
    if scene.given is not None or len(scene.shape) < 2:
        return scene
    try:
        large = scene.reshaped((ROWS, *scene.shape[1:]))
        for side in sides:
            check(side, large, dtype)
        return large
    # A larger batch may be refused: a function may want the very shape that it was given.
    except UsageError:
        return scene


def _ratio(functions: Sequence[Loss], args: Sequence[jax.Array]) -> Ratio:
    calls = [_calls(function, args) for function in functions]
    seconds = np.array([[_turn(function, args, count) for function, count in zip(functions, calls, strict=True)] for _ in range(ROUNDS)])
    ratios = seconds[:, 1] / seconds[:, 0]
    first, second = np.median(seconds, axis=0) * 1e6
    return Ratio(
        first=float(first), second=float(second), least=float(ratios.min()), median=float(np.median(ratios)), most=float(ratios.max())
    )


def _calls(function: Loss, args: Sequence[jax.Array]) -> int:
    """The number of calls that make a turn."""
    jax.block_until_ready(function(*args))
    seconds = min(_turn(function, args, 1) for _ in range(3))
    return max(1, round(TURN / seconds))


def _turn(function: Loss, args: Sequence[jax.Array], count: int) -> float:
    """The mean seconds of a call, over `count` calls."""
    began = time.perf_counter()
    for _ in range(count):
        out = function(*args)
    jax.block_until_ready(out)  # pyright: ignore[reportPossiblyUnboundVariable]
    return (time.perf_counter() - began) / count
