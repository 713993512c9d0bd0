"""A loop whose step is not jitted: found in the log of operations as what comes again and again, and timed against the same compiled."""

from __future__ import annotations

import ast
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat, ownership
from nandetect.annotations import Array
from nandetect.program import sources
from nandetect.records import Frame
from nandetect.run.operation_log import OperationLog
from nandetect.run.operations import Operation, program, run_through
from nandetect.speed import clock
from nandetect.speed.prices import Jitting
from nandetect.speed.rules import BESIDE, GAIN, OPERATIONS

# The most operations of one step (more would take long to compile), and how often a step must come again.
_LONGEST, _REPEATS = 1_000, 3
# How many steps are run, at least, to measure one.
_STEPS = 4
_BLOCKS = (ast.For, ast.While, ast.FunctionDef, ast.AsyncFunctionDef)
_TRIES = 200


@dataclass(frozen=True, slots=True)
class Repeating:
    """The same `size` operations, `times` times one after another; `end` is the index after the last of them."""

    end: int
    size: int
    times: int


def price(log: OperationLog, calls: int, seconds: float, most: float) -> Jitting | None:
    """What the loop that ran last would gain by jit; None where no loop of operations is seen. `calls` are those of compiled functions.

    Measuring takes about so many `seconds`, compiling aside. Where the steps are so long that it would take more than `most`, nothing is.
    """
    operations = log.latest()
    loop = repeating([hash(operation.site.traceback) for operation in operations])
    beside = loop is not None and calls >= loop.times
    if loop is None or not (BESIDE if beside else OPERATIONS) <= loop.size <= _LONGEST:
        return None
    whole = _whole_seconds(operations, loop)
    if _STEPS * whole > most:
        return None
    begin = log.cheapest(range(loop.end - loop.times * loop.size, loop.end - loop.size, loop.size))
    step, later = operations[begin : begin + loop.size], operations[begin + loop.size : begin + 2 * loop.size]
    known = log.inputs(begin, begin + loop.size)
    again = functools.partial(_run_again, step, known)
    of_seconds = whole if beside else None
    if of_seconds is not None and of_seconds < GAIN * (of_seconds - clock.timed(again)):
        return None  # it would gain too little even if it took no time at all
    jitted_seconds, again_seconds = clock.in_turns([_compiled(step, later, known), again], seconds)
    took = again_seconds if beside else max(_seconds(operations, loop), again_seconds)
    where, name = _named(step)
    return Jitting(
        name=name or ("what the loop does beside its compiled functions" if beside else "what the loop does"),
        operations=loop.size,
        seconds=took,
        jitted_seconds=jitted_seconds,
        where=where,
        is_function=name is not None,
        of_seconds=of_seconds,
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


def _run_again(step: Sequence[Operation], known: dict[int, Array]) -> list[Sequence[Array]]:
    """Run the operations one by one, as they were run; what each gave."""
    return [results for _, results in run_through(step, known)]


def _compiled(step: Sequence[Operation], later: Sequence[Operation], known: dict[int, Array]) -> Callable[[], object]:
    """The operations as one compiled program, which returns what the operations after them take."""
    used = {id(operand) for operation in step for operand in operation.operands}
    wanted = {id(operand) for operation in later for operand in operation.operands}
    results = [token for operation in step for token in operation.results if id(token) in wanted or id(token) not in used]
    whole = program(step, [token for token in results if token is not None], known)
    compiled = jax.jit(compat.as_function(whole.jaxpr, whole.consts))
    return lambda: compiled(*whole.args)


def _seconds(operations: Sequence[Operation], loop: Repeating) -> float:
    """The median time of a step as it ran, without the longest pause in it (in which the next batch is read) and without watching it."""
    took = []
    for number in range(loop.times - 1):
        last = loop.end - 1 - number * loop.size
        when = [operation.when for operation in operations[last - loop.size : last + 1]]
        took.append(when[-1] - when[0] - max(later - earlier for earlier, later in itertools.pairwise(when)))
    return statistics.median(took) - loop.size * _watching_seconds()


def _whole_seconds(operations: Sequence[Operation], loop: Repeating) -> float:
    """The median time from step to step, without watching it."""
    when = [operation.when for operation in operations[loop.end - loop.size * (loop.times - 1) - 1 : loop.end : loop.size]]
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(when)) - loop.size * _watching_seconds()


@functools.cache
def _watching_seconds() -> float:
    """What remembering one operation takes."""
    log, value = OperationLog(), jnp.ones(3)
    began = time.perf_counter()
    for _ in range(_TRIES):
        log.enter(None, None, [value, value], [value])
    return (time.perf_counter() - began) / _TRIES


def _named(step: Sequence[Operation]) -> tuple[Frame | None, str | None]:
    """The line of the loop, and the function that it calls there, where one function is all of a step."""
    stacks = [stack for stack in map(_frames, step) if stack]
    if not stacks:
        return None, None
    # The innermost line that all operations stand under, counted from outside.
    depth = 0
    while all(len(stack) > depth and _line(stack[depth]) == _line(stacks[0][depth]) for stack in stacks):
        depth += 1
    inner = [stack[depth] for stack in stacks if len(stack) > depth]
    names = {frame.function.split(".")[-1] for frame in inner}
    if depth and len(names) == 1 and len(inner) == len(stacks) and not all(map(_is_in_loop, inner)):
        (name,) = names
        return stacks[0][depth - 1], name if name.isidentifier() else None
    return (inner or [stacks[0][depth - 1]])[0], None


def _line(frame: Frame) -> tuple[str, int, str]:
    return frame.file, frame.line, frame.function


def _is_in_loop(frame: Frame) -> bool:
    """Whether a line stands in a loop of the function that it is in."""
    if frame.function.endswith("<lambda>"):
        return False
    tree = sources.parsed(frame.file)
    around = [node for node in ast.walk(tree) if isinstance(node, _BLOCKS) and node.lineno <= frame.line <= (node.end_lineno or 0)]
    innermost = max(around, key=lambda node: node.lineno, default=None)
    return isinstance(innermost, ast.For | ast.While)


def _frames(operation: Operation) -> list[Frame]:
    """The user's frames of an operation, outermost first."""
    frames = compat.user_frames(operation.site)
    return [frame for frame in reversed(frames) if ownership.is_users(frame.file)]
