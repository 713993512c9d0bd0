"""One operation that ran outside of any trace, as it is remembered; and several of them run again, or traced as one program."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from nandetect import compat
from nandetect.annotations import Array
from nandetect.program.trace import Program

# A weak reference to an array that an operation made, which stands for the array also when it is gone. There is one for each array.
Token = weakref.ref[Any]
# An operation as it is kept: what ran, how, its traceback, its name stack, when, where its operands begin, its results, its operands. Plain
# tuples, since they are made fastest and are one object each; `Operation` reads them.
Record = tuple[Any, ...]
# Where in a record it says where the operands begin, and where the results do.
SPLIT, HEAD = 5, 6


def is_mask(array: object) -> bool:
    """Whether it is an array of numpy's that chooses elements."""
    return isinstance(array, np.ndarray) and array.dtype == bool


class Operation(Record):
    """A record, read. Each array is given by its token.

    `what` ran: a primitive, and `how` are its parameters; or a function, and `how` is the tree of its arguments. `when` it did is a time of
    `time.perf_counter`.
    """

    __slots__ = ()
    what = property(itemgetter(0))
    how = property(itemgetter(1))
    when = property(itemgetter(4))

    @property
    def site(self) -> compat.CallSite:
        """Where the program called it."""
        return compat.CallSite(self[2], self[3])

    @property
    def results(self) -> Sequence[Token]:
        """What stands for the arrays that it gave."""
        return self[HEAD : self[SPLIT]]

    @property
    def operands(self) -> Sequence[object]:
        """What it was given."""
        return self[self[SPLIT] :]

    @property
    def rows(self) -> Sequence[Token]:
        """The results that a scan returns row by row; none of what is no scan. What it carries is its state."""
        return self.results[self._carried :]

    @property
    def like_state(self) -> Sequence[Token]:
        """Those of the rows whose elements have the shape and the type of an array that is carried."""
        kinds = (
            [(aval.shape, aval.dtype) for aval in map(compat.aval, compat.open_jaxpr(self.how["jaxpr"])[0].outvars)] if self.rows else []
        )
        state = {kind for kind in kinds[: self._carried] if kind[0]}
        return [token for token, kind in zip(self.rows, kinds[self._carried :], strict=True) if kind in state]

    @property
    def _carried(self) -> int:
        if getattr(self.what, "name", "") != "scan" or not isinstance(self.how, dict):
            return len(self.results)
        as_equation: Any = SimpleNamespace(primitive=self.what, params=self.how)
        return compat.scan_parts(as_equation)[1]

    def run(self, operands: Sequence[object]) -> Sequence[Array]:
        """Do it again, on these."""
        if isinstance(self.how, dict):
            return compat.rebind(self.what, self.how, operands)
        args, kwargs = jax.tree.unflatten(self.how, operands)
        return jax.tree.leaves(self.what(*args, **kwargs))


def run_through(operations: Sequence[Operation], start: Mapping[int, Array]) -> Iterator[tuple[Operation, Sequence[Array]]]:
    """The operations once more, each with what it gives; no longer kept than something takes it. `start` has what they begin with."""
    last = {id(operand): number for number, operation in enumerate(operations) for operand in operation.operands}
    known: dict[int, Array] = dict(start)
    for number, operation in enumerate(operations):
        results = operation.run([known[id(operand)] if type(operand) is weakref.ref else operand for operand in operation.operands])
        yield operation, results
        made = zip(map(id, operation.results), results, strict=True)
        known.update((token, result) for token, result in made if last.get(token, 0) > number)
        for operand in operation.operands:
            if last[id(operand)] == number:
                known.pop(id(operand), None)


def program(operations: Sequence[Operation], wanted: Sequence[Token], start: Mapping[int, Array], outcome: Sequence[Array] = ()) -> Program:
    """The operations as a traced program of what they were given from outside, which returns the wanted results.

    `start` has what none of the operations made, and `outcome` what the wanted results were. A mask that is numpy's is a constant: what it
    chooses must be known to trace it.
    """
    inside = {id(token) for operation in operations for token in operation.results}
    outside = [operand for operation in operations for operand in operation.operands if id(operand) not in inside]
    needed = {id(operand): start[id(operand)] if type(operand) is weakref.ref else operand for operand in outside}
    given = {number: value for number, value in needed.items() if isinstance(value, jax.Array | np.ndarray) and not is_mask(value)}

    def again(*values: Array) -> list[object]:
        known = needed | dict(zip(given, values, strict=True))
        for operation in operations:
            operands = [known.get(id(operand), operand) for operand in operation.operands]
            with compat.at(operation.site):
                results = operation.run(operands)
            known.update(zip(map(id, operation.results), results, strict=True))
        return [known[id(token)] for token in wanted]

    values = list(given.values())
    jaxpr, consts = compat.open_jaxpr(jax.make_jaxpr(again)(*values))
    return Program(
        name="code that is not jitted",
        jaxpr=jaxpr,
        consts=consts,
        args=[*values],
        arguments=tuple(f"array {number}" for number in range(len(values))),
        results=tuple("result" if len(wanted) == 1 else f"result {number}" for number in range(len(wanted))),
        call=lambda: list(outcome),
        retrace=None,
        is_compiled=False,
    )
