"""The last operations that ran outside of any trace, so that they can be run again: what they were given from outside is kept, what they
made is known by weak references alone.

To keep every result would cost more than all else that watching does: memory that a program frees and takes again at once is fast.
"""

from __future__ import annotations

import math
import sys
import time
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from nandetect import compat
from nandetect.program import Program

# Operations of a segment, and bytes that may be kept of what operations were given.
_OPERATIONS, _BYTES = 2_000, 2**28
_ARRAY = compat.array_type()
# The reference to an array that an operation made stands for it, also when it is gone. There is one for each array.
Token = weakref.ref[Any]
# Where in an operation it says where its operands begin, and where its results do.
_SPLIT, _HEAD = 5, 6


class Operation(tuple[Any, ...]):
    """One operation that ran: a primitive and its parameters, or a function and the tree of its arguments; its results, and its operands.

    Each result is given by its token, as is an operand that an operation of the window made.
    """

    __slots__ = ()
    what = property(itemgetter(0))
    how = property(itemgetter(1))
    when = property(itemgetter(4))

    @property
    def place(self) -> compat.Place:
        """Where the program called it."""
        return compat.Place(self[2], self[3])

    @property
    def results(self) -> Sequence[Token]:
        """What stands for the arrays that it gave."""
        return self[_HEAD : self[_SPLIT]]

    @property
    def operands(self) -> Sequence[Any]:
        """What it was given."""
        return self[self[_SPLIT] :]

    def run(self, operands: Sequence[Any]) -> Sequence[Any]:
        """Do it again, on these."""
        if isinstance(self.how, dict):
            return compat.rebind(self.what, self.how, operands)
        args, kwargs = jax.tree.unflatten(self.how, operands)
        return jax.tree.leaves(self.what(*args, **kwargs))


class Segment:
    """Some operations on end, with what the program held of earlier ones when they began, and the bytes that are kept for them."""

    def __init__(self, start: dict[int, tuple[Token, Any]]):
        self.start = start
        # As plain tuples, which are made faster; `Operation` reads them.
        self.records: list[tuple[Any, ...]] = []
        self.given: set[int] = set()
        self.bytes = sum(_size(value) for _, value in start.values())

    def tokens(self) -> Iterator[Token]:
        """What stands for the arrays that its operations made."""
        return (token for record in self.records for token in record[_HEAD : record[_SPLIT]] if token is not None)

    def held(self) -> dict[int, tuple[Token, Any]]:
        """What the program holds of them, by the ids of the tokens."""
        return {id(token): (token, value) for token in self.tokens() if (value := token()) is not None}

    def values(self) -> dict[int, Any]:
        """What was held when it began, by the ids of the tokens."""
        return {number: value for number, (_, value) in self.start.items()}


class Window:
    """The operations of the last segments, two or three."""

    def __init__(self) -> None:
        self._before, self._now = [Segment({})], Segment({})
        # The last that left, whose operations are let go one by one.
        self._gone = Segment({})
        # The tokens that stand for something made, by their ids: whether that is not known to be finite.
        self._open: dict[int, bool] = {}
        self._bytes = self._forgotten = 0

    @property
    def seen(self) -> int:
        """How many operations there were."""
        return self._forgotten + sum(len(segment.records) for segment in (*self._before, self._now))

    def enter(self, what: Any, how: Any, operands: Iterable[Any], results: Sequence[Any]) -> bool:
        """An operation ran: `what` on what `how` makes of the operands. Says whether a segment is at its end."""
        is_open, now = self._open, self._now
        given = []
        for operand in operands:
            kind = type(operand)
            if kind is _ARRAY:
                token = weakref.ref(operand)
                if id(token) in is_open:
                    operand = token
                elif id(operand) not in now.given:
                    self._keep(operand)
            elif kind is np.ndarray and id(operand) not in now.given:
                self._keep(operand)
            given.append(operand)
        made: list[Any] = []
        for result in results:
            if type(result) is _ARRAY:
                made.append(weakref.ref(result))
            elif isinstance(result, Tracer):
                return False
            else:
                made.append(None)
        now.records.append((what, how, *compat.here(), time.perf_counter(), _HEAD + len(made), *made, *given))
        # One comes and one goes: else Python's garbage collector would begin again and again.
        del self._gone.records[-1:]
        for token in made:
            if token is not None:
                is_open[id(token)] = True
        return len(now.records) >= _OPERATIONS or self._bytes > _BYTES

    def _keep(self, operand: Any) -> None:
        size = _size(operand)
        self._now.given.add(id(operand))
        self._now.bytes += size
        self._bytes += size

    def may_be_bad(self, operands: Iterable[Any]) -> bool:
        """Whether any of these was made by an operation of the window, and is not known to be finite."""
        is_open = self._open
        return any(is_open.get(id(weakref.ref(operand))) for operand in operands if type(operand) is _ARRAY)

    def made(self, array: Any) -> Token | None:
        """What stands for an array, if an operation of the window made it."""
        token = weakref.ref(array) if type(array) is _ARRAY else None
        return token if id(token) in self._open else None

    def held(self, of_now: bool = False) -> Iterator[tuple[Token, Any]]:
        """What the program holds of the results and is not known to be finite, the latest first; with `of_now`, of the last segment's."""
        for record in reversed(self._records(of_now)):
            for token in record[_HEAD : record[_SPLIT]]:
                if self._open.get(id(token)) and (value := token()) is not None:
                    yield token, value

    def are_finite(self, tokens: Iterable[Token]) -> None:
        """These have been seen to be finite."""
        for token in tokens:
            self._open[id(token)] = False

    def turn(self, keep: int = 1) -> None:
        """Begin a new segment, and let go of all before it but the last so many."""
        ended = self._now
        self._before.append(ended)
        for segment in self._before[:-keep]:
            self._forgotten += len(segment.records)
            self._gone, segment.start = segment, {}
        self._before = self._before[-keep:]
        started = {**_held_elsewhere(self._before), **ended.held()}
        self._now = Segment(started)
        self._bytes = sum(segment.bytes for segment in (self._gone, *self._before, self._now))
        if self._bytes > _BYTES:
            self.forget()
            return
        known = (number for segment in self._before for number in (*segment.start, *map(id, segment.tokens())))
        self._open = {number: self._open.get(number, True) for number in known}

    def forget(self) -> None:
        """Start anew."""
        self._forgotten = self.seen
        self._gone, self._before, self._now = Segment({}), [Segment({})], Segment({})
        self._open, self._bytes = {}, 0

    def _records(self, of_now: bool = False) -> list[tuple[Any, ...]]:
        return self._now.records if of_now else [record for segment in (*self._before, self._now) for record in segment.records]

    def latest(self, of_now: bool = False) -> list[Operation]:
        """All that is remembered; with `of_now`, of the last segment."""
        return list(map(Operation, self._records(of_now)))

    def origins(self, tokens: Collection[Token], of_now: bool = False) -> list[Operation]:
        """The operations that these came from, in the order in which they ran; with `of_now`, those of the last segment."""
        needed = {id(token) for token in tokens}
        found = []
        for operation in reversed(self.latest(of_now)):
            if any(id(result) in needed for result in operation.results):
                found.append(operation)
                needed.update(id(operand) for operand in operation.operands if type(operand) is weakref.ref)
        return found[::-1]

    def leaves(self, made: Sequence[tuple[Token, Any]]) -> list[tuple[Token, Any]]:
        """Those that no operation has taken, of tokens and their arrays."""
        used = {id(operand) for record in self._records() for operand in record[record[_SPLIT] :]} if made else set()
        return [one for one in made if id(one[0]) not in used]

    def start(self, of_now: bool = False) -> dict[int, Any]:
        """What was held when the window began, or its last segment."""
        return (self._now if of_now else self._before[0]).values()

    def soonest(self, begins: Sequence[int]) -> int:
        """Of places in `latest()`, the one before which the fewest operations must be run again."""
        return min(begins, key=lambda begin: begin - self._segment(begin)[0])

    def _segment(self, at: int) -> tuple[int, Segment]:
        """The segment of an operation of `latest()`, and where it begins."""
        first = 0
        for segment in self._before:
            if at < first + len(segment.records):
                return first, segment
            first += len(segment.records)
        return first, self._now

    def needed(self, begin: int, end: int) -> dict[int, Any]:
        """What some of `latest()` take of those before them: for that, these are run again from where their segment began."""
        operations, (first, segment) = self.latest(), self._segment(begin)
        taken = {id(operand) for operation in operations[begin:end] for operand in operation.operands}
        known = {number: value for number, value in segment.values().items() if number in taken}
        for operation, results in run_through(operations[first:begin], segment.values()):
            known.update((id(token), result) for token, result in zip(operation.results, results, strict=True) if id(token) in taken)
        return known


def _held_elsewhere(segments: Sequence[Segment]) -> dict[int, tuple[Token, Any]]:
    """What somebody else holds too of what the last of these segments began with."""
    # What counting itself adds differs between versions of Python.
    (alone,) = _counts([(0, object())])
    own = Counter(number for segment in segments for number in segment.start)
    start = segments[-1].start
    counts = _counts(start.values())
    return {number: held for (number, held), count in zip(start.items(), counts, strict=True) if count > alone + own[number] - 1}


def _counts(held: Iterable[tuple[Any, Any]]) -> list[int]:
    return [sys.getrefcount(value) for _, value in held]


def _size(array: Any) -> int:
    return math.prod(array.shape) * getattr(array.dtype, "itemsize", 4)


def run_through(operations: Sequence[Operation], start: dict[int, Any]) -> Iterator[tuple[Operation, Sequence[Any]]]:
    """The operations once more, each with what it gives; no longer kept than something takes it. `start` has what they begin with."""
    last = {id(operand): number for number, operation in enumerate(operations) for operand in operation.operands}
    known = dict(start)
    for number, operation in enumerate(operations):
        results = operation.run([known[id(operand)] if type(operand) is weakref.ref else operand for operand in operation.operands])
        yield operation, results
        made = zip(map(id, operation.results), results, strict=True)
        known.update((token, result) for token, result in made if last.get(token, 0) > number)
        for operand in operation.operands:
            if last[id(operand)] == number:
                known.pop(id(operand), None)


def program(operations: Sequence[Operation], wanted: Sequence[Token], start: dict[int, Any], outcome: Sequence[Any] = ()) -> Program:
    """The operations as a traced program of what they were given from outside; `start` has what earlier operations made of that, and
    `outcome` what the wanted ones were."""
    inside = {id(token) for operation in operations for token in operation.results}
    given: dict[int, Any] = {}
    for operation in operations:
        for operand in operation.operands:
            if type(operand) is weakref.ref:
                if id(operand) not in inside:
                    given[id(operand)] = start[id(operand)]
            elif isinstance(operand, jax.Array | np.ndarray):
                given[id(operand)] = operand

    def again(*values: Any) -> list[Any]:
        known = dict(zip(given, values, strict=True))
        for operation in operations:
            operands = [known.get(id(operand), operand) for operand in operation.operands]
            with compat.at(operation.place):
                results = operation.run(operands)
            known.update(zip(map(id, operation.results), results, strict=True))
        return [known[id(token)] for token in wanted]

    values = list(given.values())
    jaxpr, consts = compat.open_jaxpr(jax.make_jaxpr(again)(*values))
    return Program(
        name="code that is not jitted",
        jaxpr=jaxpr,
        consts=consts,
        args=values,
        arguments=tuple(f"array {number}" for number in range(len(values))),
        results=tuple("result" if len(wanted) == 1 else f"result {number}" for number in range(len(wanted))),
        call=lambda: list(outcome),
        retrace=lambda: jax.make_jaxpr(again)(*values),
        is_compiled=False,
    )
