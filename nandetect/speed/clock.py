"""How long alternatives take, measured in turns, so that a slow moment of the machine falls on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

Call = Callable[[], Any]
# Calls in a row, the seconds that a row may take, and the calls beyond which nothing is learned.
_ROW, _ROW_SECONDS, _ENOUGH = 10, 10e-3, 1000


def in_turns(calls: Sequence[Call], seconds: float, prepare: Call = lambda: None) -> list[float]:
    """The median seconds of each call, results awaited, within about as many seconds in all, one round at least.

    Each is called once before, to compile. In a round each is called a few times in a row: the first of them finds the caches full of
    what the others left, as no call of a loop does, and does not count where there is another. `prepare` is called before each call;
    its time is not counted.
    """
    counts = [max(1, min(_ROW, int(_ROW_SECONDS / timed(call, prepare, again=True)))) for call in calls]
    took: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while not took[0] or (len(took[0]) < _ENOUGH and time.perf_counter() < end):
        for call, count, mine in zip(calls, counts, took, strict=True):
            row = [timed(call, prepare) for _ in range(count)]
            mine += row[1:] or row
    return [statistics.median(mine) for mine in took]


def timed(call: Call, prepare: Call = lambda: None, again: bool = False) -> float:
    """The seconds of one call, its result awaited; of the second one where `again` is asked for."""
    if again:
        prepare()
        jax.block_until_ready(call())
    prepare()
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began
