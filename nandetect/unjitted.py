"""A loop whose step is not jitted, found among the operations that ran last; and what the same operations take compiled."""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat, provenance
from nandetect.eager import Memory, Operation, program
from nandetect.records import Frame
from nandetect.speed import clock
from nandetect.speed.prices import Jitting
from nandetect.speed.rules import OPERATIONS
from nandetect.watch import working

# The operations that are looked at, the most of one step (more would take long to compile), and how often a step must come again.
_LATEST, _LONGEST, _REPEATS = 6_000, 1_000, 3
_SECONDS = 0.3
_TRIES = 200


@dataclass(frozen=True, slots=True)
class Repeating:
    """`times` times the same `size` operations, the last of them ending before `end`."""

    end: int
    size: int
    times: int


def price(memory: Memory, calls: int) -> Jitting | None:
    """What the loop that ran last would gain by jit; None where no loop of operations is seen. `calls` are those of compiled functions."""
    operations = memory.latest(_LATEST)
    loop = repeating([hash(operation.place.traceback) for operation in operations])
    if loop is None or not OPERATIONS <= loop.size <= _LONGEST:
        return None
    # The last but one, after which it can be seen what the next step takes of it.
    step = operations[loop.end - 2 * loop.size : loop.end - loop.size]
    jitted, again = _alternatives(step, operations[loop.end - loop.size :])
    jitted_seconds, again_seconds = clock.in_turns([jitted, again], _SECONDS)
    seconds = again_seconds if calls >= loop.times else max(_seconds(operations, loop), again_seconds)
    where, name = _named(step)
    return Jitting(
        name=name or "what the loop does",
        operations=loop.size,
        seconds=seconds,
        jitted_seconds=jitted_seconds,
        where=where,
        is_function=name is not None,
    )


def repeating(keys: Sequence[int]) -> Repeating | None:
    """The stretch of repetitions that covers most of a sequence; of those that cover as much, the one of the shortest period."""
    sequence, best = np.asarray(keys), None
    for size in range(1, min(_LONGEST, len(keys) // _REPEATS) + 1):
        loop = _of_period(sequence, size)
        if loop and (best is None or loop.size * loop.times > best.size * (best.times + 1)):
            best = loop
    return best


def _of_period(keys: np.ndarray, size: int) -> Repeating | None:
    """The longest stretch in which everything comes again after `size`."""
    breaks = np.flatnonzero(keys[size:] != keys[:-size])
    edges = np.concatenate([[-1], breaks, [len(keys) - size]])
    lengths = np.diff(edges) - 1
    longest = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    times = 1 + int(lengths[longest]) // size
    return Repeating(int(edges[longest + 1]) + size, size, times) if times >= _REPEATS else None


def _alternatives(step: Sequence[Operation], later: Sequence[Operation]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The operations as one compiled program, and one by one as they were run."""
    used = {id(operand) for operation in step for operand in operation.operands}
    wanted = {id(operand) for operation in later for operand in operation.operands}
    results = [result for operation in step for result in operation.results if id(result) in wanted or id(result) not in used]
    whole = program(step, results)
    compiled = jax.jit(compat.as_function(whole.jaxpr, whole.consts))
    return lambda: compiled(*whole.args), lambda: [operation.run(operation.operands) for operation in step]


def _seconds(operations: Sequence[Operation], loop: Repeating) -> float:
    """The median time of a step as it ran, without the longest pause in it (in which the next batch is read) and without watching it."""
    took = []
    for number in range(loop.times - 1):
        last = loop.end - 1 - number * loop.size
        when = [operation.when for operation in operations[last - loop.size : last + 1]]
        took.append(when[-1] - when[0] - max(later - earlier for earlier, later in itertools.pairwise(when)))
    return statistics.median(took) - loop.size * _watching_seconds()


@functools.cache
def _watching_seconds() -> float:
    """What remembering one operation takes."""
    memory, value = Memory(lambda report: None, lambda: None), jnp.ones(3)
    primitive: Any = SimpleNamespace(multiple_results=False)
    began = time.perf_counter()
    with _not_working():
        for _ in range(_TRIES):
            memory.primitive(primitive, [value, value], {}, value)
    return (time.perf_counter() - began) / _TRIES


class _not_working:
    def __enter__(self) -> None:
        self.before, working.now = working.now, False

    def __exit__(self, *error: object) -> None:
        working.now = self.before


def _named(step: Sequence[Operation]) -> tuple[Frame | None, str | None]:
    """The user's line that all operations of a step have in common, and the function that it calls, where it is one."""
    stacks = [_frames(operation) for operation in step]
    stacks = [stack for stack in stacks if stack]
    if not stacks:
        return None, None
    lines = [[(frame.file, frame.line, frame.function) for frame in stack] for stack in stacks]
    common = [at for at, line in enumerate(lines[0]) if all(line in other for other in lines)]
    if not common:
        return stacks[0][-1], None
    where = stacks[0][common[0]]
    inner = {other[other.index(lines[0][common[0]]) - 1][2] if other.index(lines[0][common[0]]) else None for other in lines}
    name = inner.pop() if len(inner) == 1 else None
    return where, name if name and name.isidentifier() else None


def _frames(operation: Operation) -> list[Frame]:
    """The user's frames of an operation, innermost first."""
    frames = compat.user_frames(SimpleNamespace(source_info=operation.place))
    return [frame for frame in frames if provenance.is_users(frame.file) and not provenance.is_own(frame.file)]
