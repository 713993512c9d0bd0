"""The log of the operations that ran last outside of any trace, so that they can be run again.

What operations were given from outside is kept; what they made themselves is known by weak references alone, and made again when it is
needed. To keep every result would cost more than all else that watching does: memory that a program frees and takes again at once is fast.
"""

from __future__ import annotations

import math
import sys
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from nandetect import compat
from nandetect.annotations import Array
from nandetect.run.operations import HEAD, SPLIT, Operation, Record, Token, run_through

# Operations of a segment, and bytes that may be kept of what operations were given.
_OPERATIONS, _BYTES = 2_000, 2**28
_ARRAY, _REFS = compat.array_type(), compat.ref_types()
_token = weakref.ref

# Arrays with their tokens, by the ids of the tokens.
Kept = dict[int, tuple[Token, Array]]


class Segment:
    """Some operations that ran one after another.

    `kept` has what they were given from outside, and what the program held of earlier results when the segment began. `states` has an entry
    for each array of `kept` and each result, by the id of its token: True for a result that may hold a NaN, False for one that was seen to
    be finite, None for what was given from outside.
    """

    __slots__ = ("kept", "records", "states")

    def __init__(self, kept: Kept, states: dict[int, bool | None]):
        self.kept, self.states = kept, states
        self.records: list[Record] = []

    def tokens(self) -> Iterator[Token]:
        """What stands for the arrays that its operations made."""
        return (token for record in self.records for token in record[HEAD : record[SPLIT]] if token is not None)

    def held(self) -> Kept:
        """Those of them that the program holds."""
        return {id(token): (token, value) for token in self.tokens() if (value := token()) is not None}


class OperationLog:
    """The operations of the last two or three segments. `full` is called where the last one is at its end."""

    def __init__(self, full: Callable[[], None] = lambda: None) -> None:
        self._full = full
        self._last = Segment({}, {})
        self._segments = [self._last]
        # What the segments that were let go held, freed bit by bit: see `_add`.
        self._gone: list[object] = []
        self._bytes = self._forgotten = 0

    @property
    def seen(self) -> int:
        """How many operations there were."""
        return self._forgotten + sum(len(segment.records) for segment in self._segments)

    @property
    def is_due(self) -> bool:
        """Whether the last segment is at its end."""
        return len(self._last.records) >= _OPERATIONS or self._bytes > _BYTES

    def enter(self, what: object, how: object, operands: Iterable[object], results: Sequence[object]) -> None:
        """An operation ran: `what` on what `how` makes of the operands."""
        last = self._last
        made: list[Token | None] = []
        for result in results:
            if type(result) is _ARRAY:
                made.append(_token(result))
            elif isinstance(result, Tracer):
                return
            else:
                made.append(None)
        given = []
        for operand in operands:
            kind = type(operand)
            if kind is _ARRAY or isinstance(operand, np.ndarray):
                given.append(self._token(last, operand))
            elif kind in _REFS:
                return
            else:
                given.append(operand)
        for token in made:
            if token is not None:
                last.states[id(token)] = True
        self._add(last, (what, how, *compat.here(), time.perf_counter(), HEAD + len(made), *made, *given))

    def enter_of_two(self, what: object, how: object, left: Any, right: Any, result: object) -> None:
        """`enter` for two operands and one result, written out since most operations are such."""
        if type(result) is not _ARRAY or type(left) is not _ARRAY:
            self.enter(what, how, (left, right), (result,))
            return
        last, made, token = self._last, _token(result), _token(left)
        states = last.states
        if id(token) not in states:
            self._keep(last, token, left)
        if type(right) is _ARRAY or isinstance(right, np.ndarray):
            right = self._token(last, right)
        states[id(made)] = True
        self._add(last, (what, how, *compat.here(), time.perf_counter(), HEAD + 1, made, token, right))

    def _token(self, last: Segment, operand: Any) -> Token:
        token = _token(operand)
        if id(token) not in last.states:
            self._keep(last, token, operand)
        return token

    def _add(self, last: Segment, record: Record) -> None:
        last.records.append(record)
        # An item of `_gone` goes for each record that comes. Python's garbage collector starts whenever so many more objects were made than
        # freed, and so hardly ever does; and freed all at once, the memory would lie about unused.
        del self._gone[-1:]
        # `is_due`, written out, since this runs for every operation: asking the property would be one more call each time.
        if len(last.records) >= _OPERATIONS or self._bytes > _BYTES:
            self._full()

    def _keep(self, last: Segment, token: Token, array: Array) -> None:
        last.kept[id(token)] = (token, array)
        last.states[id(token)] = None
        self._bytes += _size(array)
        if self._bytes > _BYTES:
            self._bytes = self._kept_bytes()

    def _kept_bytes(self) -> int:
        """The bytes of what is kept and nobody else holds."""
        kept = {number: entry for segment in self._segments for number, entry in segment.kept.items()}
        return sum(_size(kept[number][1]) for number in kept.keys() - _held_elsewhere(kept))

    def may_be_bad(self, operands: Iterable[object]) -> bool:
        """Whether any of these was made by an operation of the log, and is not known to be finite."""
        states = self._last.states
        return any(states.get(id(_token(operand))) for operand in operands if type(operand) is _ARRAY)

    def token_of(self, array: object) -> Token | None:
        """What stands for an array, if an operation of the log made it."""
        token = _token(array) if type(array) is _ARRAY else None
        return None if self._last.states.get(id(token)) is None else token

    def release(self, array: object) -> None:
        """What was made of an array is no longer known: the program writes to it."""
        if type(array) is _ARRAY:
            for segment in self._segments:
                segment.states.pop(id(_token(array)), None)

    def held(self, last_only: bool = False) -> Iterator[tuple[Token, jax.Array]]:
        """The results that the program holds and that are not known to be finite, the latest first; perhaps of the last segment only."""
        states = self._last.states
        for record in reversed(self._records(last_only)):
            for token in record[HEAD : record[SPLIT]]:
                if states.get(id(token)) and (value := token()) is not None:
                    yield token, value

    def mark_finite(self, tokens: Iterable[Token]) -> None:
        """These have been seen to be finite."""
        for token in tokens:
            self._last.states[id(token)] = False

    def begin_segment(self, keep: int = 1) -> None:
        """Begin a new segment, and let go of all before it but the last so many."""
        gone, self._segments = self._segments[:-keep], self._segments[-keep:]
        ended = self._segments[-1]
        kept = {**_held_elsewhere(ended.kept), **ended.held()}
        self._last = Segment(kept, {number: ended.states.get(number) for number in kept})
        self._segments.append(self._last)
        self._forgotten += sum(len(segment.records) for segment in gone)
        self._gone = [item for segment in gone for item in (*segment.kept.values(), *segment.records)]
        if self._bytes > _BYTES // 2:
            self._bytes = self._kept_bytes()
        if self._bytes > _BYTES:
            self.forget()

    def forget(self) -> None:
        """Start anew."""
        self._forgotten = self.seen
        self._last = Segment({}, {})
        self._segments, self._gone, self._bytes = [self._last], [], 0

    def _records(self, last_only: bool = False) -> list[Record]:
        return [record for segment in (self._segments[-1:] if last_only else self._segments) for record in segment.records]

    def latest(self, last_only: bool = False) -> list[Operation]:
        """All operations that are remembered; perhaps those of the last segment only."""
        return list(map(Operation, self._records(last_only)))

    def origins(self, tokens: Collection[Token], last_only: bool = False) -> list[Operation]:
        """The operations that these results came from, in the order in which they ran; perhaps those of the last segment only."""
        needed = {id(token) for token in tokens}
        origins = []
        for operation in reversed(self.latest(last_only)):
            if any(id(result) in needed for result in operation.results):
                origins.append(operation)
                needed.update(map(id, operation.operands))
        return origins[::-1]

    def untaken(self, made: Sequence[tuple[Token, Array]]) -> list[tuple[Token, Array]]:
        """Those results that no operation has taken, and that are not `beside` one that was."""
        beside = {id(token) for token, _ in self.beside(made)}
        used = self._used() if made else set()
        return [(token, value) for token, value in made if id(token) not in used and id(token) not in beside]

    def beside(self, made: Sequence[tuple[Token, Array]]) -> list[tuple[Token, Array]]:
        """Those bad results, no single numbers, that no operation has taken and that stand beside one that was: a record of what was tried.

        A sampler's scan gives what became of its trajectories beside its states: one of them has the shape of what is carried. Where none
        has, they are metrics.
        """
        bad = {id(token) for token, value in made if value.size > 1}
        beside: set[int] = set()
        for operation in self.latest() if bad else ():
            tried = bad & self.beside_used(operation)
            if not tried.isdisjoint(map(id, operation.like_state)):
                beside |= tried
        return [(token, value) for token, value in made if id(token) in beside]

    def beside_used(self, operation: Operation) -> set[int]:
        """Of what a scan returns row by row, by the ids of the tokens, what no operation has taken, where one has another result of it."""
        made = set(map(id, operation.results))
        used = self._used() if operation.rows else set()
        return set(map(id, operation.rows)) - used if not used.isdisjoint(made) else set()

    def _used(self) -> set[int]:
        return {id(operand) for record in self._records() for operand in record[record[SPLIT] :]}

    def kept(self, last_only: bool = False) -> dict[int, Array]:
        """What the operations need that none of them made, by the ids of the tokens; perhaps those of the last segment only."""
        return _values(self._segments[-1:] if last_only else self._segments)

    def cheapest(self, begins: Sequence[int]) -> int:
        """Of some indices in `latest()`, the one for whose `inputs` the fewest operations must be run again."""
        return min(begins, key=lambda begin: begin - self._segment(begin)[1])

    def _segment(self, index: int) -> tuple[int, int]:
        """The number of the segment in which an operation of `latest()` is, and the index of that segment's first one."""
        first = 0
        for number, segment in enumerate(self._segments[:-1]):
            if index < first + len(segment.records):
                return number, first
            first += len(segment.records)
        return len(self._segments) - 1, first

    def inputs(self, begin: int, end: int) -> dict[int, Array]:
        """What some of `latest()` take of those before them: for that, these are run again from where their segment began."""
        operations, (number, first) = self.latest(), self._segment(begin)
        taken = {id(operand) for operation in operations[begin:end] for operand in operation.operands}
        start = _values(self._segments[number:])
        known = {token: value for token, value in start.items() if token in taken}
        for operation, results in run_through(operations[first:begin], start):
            known.update((id(token), result) for token, result in zip(operation.results, results, strict=True) if id(token) in taken)
        return known


def _values(segments: Sequence[Segment]) -> dict[int, Array]:
    return {number: value for segment in segments for number, (_, value) in segment.kept.items()}


def _held_elsewhere(kept: Kept) -> Kept:
    """What somebody else holds too of what is kept, in one tuple each."""
    # What counting itself adds differs between versions of Python.
    (alone,) = _counts([(None, object())])
    return {number: entry for (number, entry), count in zip(kept.items(), _counts(kept.values()), strict=True) if count > alone}


def _counts(kept: Iterable[tuple[object, object]]) -> list[int]:
    return [sys.getrefcount(value) for _, value in kept]


def _size(array: Array) -> int:
    return math.prod(array.shape) * getattr(array.dtype, "itemsize", 4)
