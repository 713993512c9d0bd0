"""The last operations that ran outside of any trace, so that they can be run again: what they were given from outside is kept, what they
made is known by weak references alone.

To keep every result would cost more than all else that watching does: memory that a program frees and takes again at once is fast.
"""

from __future__ import annotations

import math
import sys
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from nandetect import compat
from nandetect.program.trace import Program

# Operations of a segment, and bytes that may be kept of what operations were given.
_OPERATIONS, _BYTES = 2_000, 2**28
_ARRAY, _REFS = compat.array_type(), compat.ref_types()
# The reference to an array that an operation made stands for it, also when it is gone. There is one for each array.
Token = weakref.ref[Any]
_token = weakref.ref
# Where in an operation it says where its operands begin, and where its results do.
_SPLIT, _HEAD = 5, 6


def is_mask(array: Any) -> bool:
    """Whether it is an array of numpy's that chooses elements."""
    return isinstance(array, np.ndarray) and array.dtype == bool


class Operation(tuple[Any, ...]):
    """One operation that ran: a primitive and its parameters, or a function and the tree of its arguments; its results, and its operands.

    Each array is given by its token.
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
    """Some operations on end. `kept` has what they were given from outside, and what the program held of earlier results when they began:
    (token, array) by the ids of the tokens.

    `states` has the tokens of these and of what its operations made, by their ids: whether it is not known to be finite; None for what was
    given from outside.
    """

    __slots__ = ("kept", "records", "states")

    def __init__(self, kept: dict[int, tuple[Token, Any]], states: dict[int, bool | None]):
        self.kept, self.states = kept, states
        # As plain tuples, which are made faster; `Operation` reads them.
        self.records: list[tuple[Any, ...]] = []

    def tokens(self) -> Iterator[Token]:
        """What stands for the arrays that its operations made."""
        return (token for record in self.records for token in record[_HEAD : record[_SPLIT]] if token is not None)

    def held(self) -> dict[int, tuple[Token, Any]]:
        """What the program holds of them."""
        return {id(token): (token, value) for token in self.tokens() if (value := token()) is not None}


class Window:
    """The operations of the last segments, two or three. `full` is called where the last one is at its end."""

    def __init__(self, full: Callable[[], None] = lambda: None) -> None:
        self._full = full
        self._now = Segment({}, {})
        self._segments = [self._now]
        # What is left of the last that left.
        self._gone: list[Any] = []
        self._bytes = self._forgotten = 0

    @property
    def seen(self) -> int:
        """How many operations there were."""
        return self._forgotten + sum(len(segment.records) for segment in self._segments)

    @property
    def is_due(self) -> bool:
        """Whether the last segment is at its end."""
        return len(self._now.records) >= _OPERATIONS or self._bytes > _BYTES

    def enter(self, what: Any, how: Any, operands: Iterable[Any], results: Sequence[Any]) -> None:
        """An operation ran: `what` on what `how` makes of the operands."""
        now = self._now
        made: list[Any] = []
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
                given.append(self._token(now, operand))
            elif kind in _REFS:
                return
            else:
                given.append(operand)
        for token in made:
            if token is not None:
                now.states[id(token)] = True
        self._add(now, (what, how, *compat.here(), time.perf_counter(), _HEAD + len(made), *made, *given))

    def enter_of_two(self, what: Any, how: Any, left: Any, right: Any, result: Any) -> None:
        """`enter` for two operands and one result, written out since most operations are such."""
        if type(result) is not _ARRAY or type(left) is not _ARRAY:
            self.enter(what, how, (left, right), (result,))
            return
        now, made, token = self._now, _token(result), _token(left)
        states = now.states
        if id(token) not in states:
            self._keep(now, token, left)
        if type(right) is _ARRAY or isinstance(right, np.ndarray):
            right = self._token(now, right)
        states[id(made)] = True
        self._add(now, (what, how, *compat.here(), time.perf_counter(), _HEAD + 1, made, token, right))

    def _token(self, now: Segment, operand: Any) -> Token:
        token = _token(operand)
        if id(token) not in now.states:
            self._keep(now, token, operand)
        return token

    def _add(self, now: Segment, record: tuple[Any, ...]) -> None:
        now.records.append(record)
        # One comes and one goes: else Python's garbage collector would begin again and again, and memory that is free lie about.
        del self._gone[-1:]
        if len(now.records) >= _OPERATIONS or self._bytes > _BYTES:
            self._full()

    def _keep(self, now: Segment, token: Token, array: Any) -> None:
        now.kept[id(token)] = (token, array)
        now.states[id(token)] = None
        self._bytes += _size(array)
        if self._bytes > _BYTES:
            self._bytes = self._kept_bytes()

    def _kept_bytes(self) -> int:
        """The bytes of what is kept and nobody else holds."""
        kept = {number: one for segment in self._segments for number, one in segment.kept.items()}
        return sum(_size(kept[number][1]) for number in kept.keys() - _held_elsewhere(kept))

    def may_be_bad(self, operands: Iterable[Any]) -> bool:
        """Whether any of these was made by an operation of the window, and is not known to be finite."""
        states = self._now.states
        return any(states.get(id(_token(operand))) for operand in operands if type(operand) is _ARRAY)

    def made(self, array: Any) -> Token | None:
        """What stands for an array, if an operation of the window made it."""
        token = _token(array) if type(array) is _ARRAY else None
        return None if self._now.states.get(id(token)) is None else token

    def held(self, of_now: bool = False) -> Iterator[tuple[Token, Any]]:
        """What the program holds of the results and is not known to be finite, the latest first; with `of_now`, of the last segment's."""
        states = self._now.states
        for record in reversed(self._records(of_now)):
            for token in record[_HEAD : record[_SPLIT]]:
                if states.get(id(token)) and (value := token()) is not None:
                    yield token, value

    def are_finite(self, tokens: Iterable[Token]) -> None:
        """These have been seen to be finite."""
        for token in tokens:
            self._now.states[id(token)] = False

    def turn(self, keep: int = 1) -> None:
        """Begin a new segment, and let go of all before it but the last so many."""
        gone, self._segments = self._segments[:-keep], self._segments[-keep:]
        ended = self._segments[-1]
        kept = {**_held_elsewhere(ended.kept), **ended.held()}
        self._now = Segment(kept, {number: ended.states.get(number) for number in kept})
        self._segments.append(self._now)
        self._forgotten += sum(len(segment.records) for segment in gone)
        self._gone = [one for segment in gone for one in (*segment.kept.values(), *segment.records)]
        if self._bytes > _BYTES // 2:
            self._bytes = self._kept_bytes()
        if self._bytes > _BYTES:
            self.forget()

    def forget(self) -> None:
        """Start anew."""
        self._forgotten = self.seen
        self._now = Segment({}, {})
        self._segments, self._gone, self._bytes = [self._now], [], 0

    def _records(self, of_now: bool = False) -> list[tuple[Any, ...]]:
        return [record for segment in (self._segments[-1:] if of_now else self._segments) for record in segment.records]

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
                needed.update(map(id, operation.operands))
        return found[::-1]

    def leaves(self, made: Sequence[tuple[Token, Any]]) -> list[tuple[Token, Any]]:
        """Those that no operation has taken, of tokens and their arrays."""
        used = {id(operand) for record in self._records() for operand in record[record[_SPLIT] :]} if made else set()
        return [one for one in made if id(one[0]) not in used]

    def kept(self, of_now: bool = False) -> dict[int, Any]:
        """What the operations need that none of them made, by the ids of the tokens; with `of_now`, those of the last segment."""
        return _values(self._segments[-1:] if of_now else self._segments)

    def soonest(self, begins: Sequence[int]) -> int:
        """Of places in `latest()`, the one before which the fewest operations must be run again."""
        return min(begins, key=lambda begin: begin - self._segment(begin)[1])

    def _segment(self, at: int) -> tuple[int, int]:
        """The number of the segment of an operation of `latest()`, and where it begins."""
        first = 0
        for number, segment in enumerate(self._segments[:-1]):
            if at < first + len(segment.records):
                return number, first
            first += len(segment.records)
        return len(self._segments) - 1, first

    def needed(self, begin: int, end: int) -> dict[int, Any]:
        """What some of `latest()` take of those before them: for that, these are run again from where their segment began."""
        operations, (number, first) = self.latest(), self._segment(begin)
        taken = {id(operand) for operation in operations[begin:end] for operand in operation.operands}
        start = _values(self._segments[number:])
        known = {number: value for number, value in start.items() if number in taken}
        for operation, results in run_through(operations[first:begin], start):
            known.update((id(token), result) for token, result in zip(operation.results, results, strict=True) if id(token) in taken)
        return known


def _values(segments: Sequence[Segment]) -> dict[int, Any]:
    return {number: value for segment in segments for number, (_, value) in segment.kept.items()}


def _held_elsewhere(kept: dict[int, tuple[Token, Any]]) -> dict[int, tuple[Token, Any]]:
    """What somebody else holds too of what is kept, in one tuple each."""
    # What counting itself adds differs between versions of Python.
    (alone,) = _counts([(None, object())])
    return {number: one for (number, one), count in zip(kept.items(), _counts(kept.values()), strict=True) if count > alone}


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
    """The operations as a traced program of what they were given from outside; `start` has what none of them made, and `outcome`
    what the wanted ones were. A mask that is numpy's is a constant: what it chooses must be known to trace it."""
    inside = {id(token) for operation in operations for token in operation.results}
    outside = [operand for operation in operations for operand in operation.operands if id(operand) not in inside]
    needed = {id(operand): start[id(operand)] if type(operand) is weakref.ref else operand for operand in outside}
    given = {number: value for number, value in needed.items() if isinstance(value, jax.Array | np.ndarray) and not is_mask(value)}

    def again(*values: Any) -> list[Any]:
        known = needed | dict(zip(given, values, strict=True))
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
