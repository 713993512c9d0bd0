"""How long alternatives take, measured in turns, so that a slow moment of the machine falls on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import jax

Call: TypeAlias = Callable[[], object]
Context: TypeAlias = Callable[[], AbstractContextManager[object]]
# Calls in a row, the seconds that a row may take, and the calls beyond which nothing is learned.
_ROW, _ROW_SECONDS, _ENOUGH = 10, 10e-3, 1000


def in_turns(
    calls: Sequence[Call],
    seconds: float,
    prepare: Call = lambda: None,
    around: Mapping[int, Context] | None = None,
) -> list[float]:
    """The median seconds of each call, results awaited, within about as many seconds in all, one round at least.

    Each is called twice before, to compile. In a round each is called a few times in a row; the first call of a row does not count where
    there is another, since it finds the caches full of what the other calls left, as no call of a loop does. `prepare` is called before
    each call, and `around` has the context in which the calls of a number are made; the time of both is not counted.
    """
    contexts: list[Context] = [(around or {}).get(number, nullcontext) for number in range(len(calls))]
    counts = [0] * len(calls)
    took: list[list[float]] = [[] for _ in calls]
    for number, call in enumerate(calls):
        with contexts[number]():
            timed(call, prepare)
            counts[number] = max(1, min(_ROW, int(_ROW_SECONDS / timed(call, prepare))))
    end = time.perf_counter() + seconds
    while not took[0] or (len(took[0]) < _ENOUGH and time.perf_counter() < end):
        for number, call in enumerate(calls):
            with contexts[number]():
                row = [timed(call, prepare) for _ in range(counts[number])]
            took[number] += row[1:] or row
    return [statistics.median(times) for times in took]


def timed(call: Call, prepare: Call = lambda: None) -> float:
    """The seconds of one call, its result awaited."""
    prepare()
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began
