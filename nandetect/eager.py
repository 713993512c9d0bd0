"""Code that is not jitted: its operations are remembered as they run; those that a bad value came from are the program to locate it in.

The last operations are kept with their operands, within a bound. Now and then, and at the end, the results that the program still holds are
looked at, and so is every number that it reads. A NaN among them is a symptom; an infinity is not, since a mask is one in passing.
"""

from __future__ import annotations

import functools
import pickle
import sys
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from nandetect import compat, finite
from nandetect.program import Program, is_jitted
from nandetect.records import Event, Report
from nandetect.speed.reads import Reads
from nandetect.watch import working

# Operations that are remembered, and bytes of what they gave.
_OPERATIONS = 20_000
_BYTES = 2**28
# Operations between two glances at the clock, seconds between two looks, and the share of the time that looking may take.
_GLANCE = 64
_SECONDS = 0.25
_SHARE = 0.01
# What the program's arrays are computed with where it calls no function by name.
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod")
_OPERATORS = (*(f"__{side}{name}__" for name in _BINARY for side in ("", "r")), "__neg__", "__abs__", "__getitem__")
# How a program reads a number.
_READS = ("__float__", "__format__", "__str__", "__repr__", "__array__", "item", "tolist")


@dataclass(slots=True)
class Operation:
    """One operation that ran: `run` does it again on operands."""

    run: Callable[[Sequence[Any]], Sequence[Any]]
    operands: Sequence[Any]
    results: tuple[Any, ...]
    place: Any
    size: int
    when: float


class Memory:
    """The operations of late, and a look at what they left behind. `made_elsewhere` is called when a NaN is read that none of them made."""

    def __init__(self, tell: Callable[[Report], None], made_elsewhere: Callable[[], None]):
        self.seen = 0
        self.seconds = 0.0
        # What stands in for JAX's own functions, by the id of each.
        self.stand_ins: dict[int, Any] = {}
        self._tell, self._made_elsewhere = tell, made_elsewhere
        self._operations: deque[Operation] = deque()
        self._bytes = 0
        # How many of the last operations have not been looked at.
        self._fresh = 0
        self._told: set[int] = set()
        self._looked = time.perf_counter()
        self._look_seconds = 0.0
        self.reads = Reads()

    def latest(self, count: int) -> list[Operation]:
        """The last operations, that many at most."""
        return list(islice(reversed(self._operations), count))[::-1]

    def primitive(self, primitive: Any, operands: Sequence[Any], params: dict[str, Any], out: Any) -> None:
        """An operation ran by itself."""
        results = tuple(out) if primitive.multiple_results else (out,)
        self._enter(lambda args: compat.rebind(primitive, params, args), operands, results)

    def function(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """A compiled function of JAX's own ran, or one of the user's."""
        operands, tree = jax.tree.flatten((args, kwargs))

        def run(again: Sequence[Any]) -> list[Any]:
            given, named = jax.tree.unflatten(tree, again)
            return jax.tree.leaves(function(*given, **named))

        self._enter(run, operands, tuple(jax.tree.leaves(out)))

    def _enter(self, run: Callable[[Sequence[Any]], Sequence[Any]], operands: Sequence[Any], results: tuple[Any, ...]) -> None:
        if working.now or any(isinstance(result, Tracer) for result in results):
            return
        self.seen += 1
        size = sum(result.size * 4 for result in results if isinstance(result, jax.Array))
        operation = Operation(run, operands, results, compat.here(), size, time.perf_counter())
        self._operations.append(operation)
        self._fresh += 1
        self._bytes += size
        while self._bytes > _BYTES or len(self._operations) > _OPERATIONS:
            self._bytes -= self._operations.popleft().size
        if self.seen % _GLANCE == 0:
            now = time.perf_counter()
            if now - self._looked > max(_SECONDS, self._look_seconds / _SHARE):
                self.look()

    def forget(self) -> None:
        """Start anew."""
        self._operations.clear()
        self._fresh = 0
        self._bytes = 0

    def look(self) -> None:
        """Look at the results that the program still holds. Tells of the first NaN that an operation made."""
        began = time.perf_counter()
        # Of those that are forgotten by now nothing is looked at: they could not be run again.
        held = _held(self.latest(self._fresh), self._operations)
        self._fresh = 0
        waits = time.perf_counter()
        jax.block_until_ready(held)
        # What the program would have waited for anyway is no part of what a look takes.
        began += time.perf_counter() - waits
        bad = _nans(held)
        self._looked = time.perf_counter()
        self._look_seconds = self._looked - began
        self.seconds += self._look_seconds
        if bad:
            self._find(bad)

    def read(self, number: Any) -> None:
        """The program reads a number, to print it or to go by it: a NaN is a symptom, held or not."""
        if working.now or number.is_deleted():
            return
        began = time.perf_counter()
        number.block_until_ready()
        ready = time.perf_counter()
        try:
            self._judge(number)
        finally:
            self.reads.enter(began, ready - began, time.perf_counter() - ready)

    def _judge(self, number: Any) -> None:
        if number.size == 1 and finite.can_be_bad(number) and _nans([number]):
            if any(number is result for operation in self._operations for result in operation.results):
                self._find([number])
            else:
                self._made_elsewhere()

    def _find(self, bad: list[Any]) -> None:
        with working, compat.outside_of_traces():
            try:
                report = self._located(bad)
            # The program goes on whatever its operations were: that they cannot be run again is not its fault.
            except Exception as error:
                report = _unlocated(error)
        if report is not None and report.origin.primitive != "<input>":
            self.forget()
            self._tell(report)

    def _located(self, symptoms: list[Any]) -> Report | None:
        made = {id(result): operation for operation in self._operations for result in operation.results}
        # What a compiled program handed to a callback, say, was made by no operation of these.
        bad = [symptom for symptom in symptoms if id(symptom) in made]
        if not bad:
            return None
        needed: dict[int, Operation] = {}
        left = [made[id(result)] for result in bad]
        while left:
            operation = left.pop()
            if id(operation) not in needed:
                needed[id(operation)] = operation
                left += [made[id(operand)] for operand in operation.operands if id(operand) in made]
        # Only now: whoever finds nothing does not wait for all that locating needs to be imported.
        from nandetect.replay import diagnose

        slice_ = [operation for operation in self._operations if id(operation) in needed]
        with compat.replay_settings(), compat.muted_effects():
            return diagnose(program(slice_, bad))


def _unlocated(error: Exception) -> Report:
    origin = Event(primitive="<unknown>", value="nan", reason="not located")
    said = " ".join(str(error).split())[:160]
    note = f"the operations before it could not be run again ({type(error).__name__}: {said}); jit the function that it is in"
    return Report(origin=origin, chain=(origin,), symptoms=("result",), reproduced=False, notes=(note,), label="code that is not jitted")


def _nans(results: Sequence[Any]) -> list[Any]:
    """Those of the results that hold a NaN."""
    with working, compat.outside_of_traces():
        return [result for result, state in zip(results, finite.states(results), strict=True) if state == finite.NAN]


def _held(fresh: Sequence[Operation], every: Iterable[Operation]) -> list[Any]:
    """The results that somebody else holds too: those with more references than are remembered here."""
    own = Counter(id(value) for operation in every for values in (operation.operands, operation.results) for value in values)
    held = []
    for operation in fresh:
        for result in operation.results:
            # One reference more is the loop's variable, and one the argument of `getrefcount`.
            if sys.getrefcount(result) > own[id(result)] + 2 and finite.can_be_bad(result):
                held.append(result)
    return held


def program(operations: Sequence[Operation], symptoms: list[Any]) -> Program:
    """The operations as a traced program of what they were given from outside."""
    inside = {id(result) for operation in operations for result in operation.results}
    given: dict[int, Any] = {}
    for operation in operations:
        for operand in operation.operands:
            if isinstance(operand, jax.Array | np.ndarray) and id(operand) not in inside:
                given[id(operand)] = operand

    def again(*values: Any) -> list[Any]:
        known = dict(zip(given, values, strict=True))
        for operation in operations:
            operands = [known.get(id(operand), operand) for operand in operation.operands]
            with compat.at(operation.place):
                results = operation.run(operands)
            known.update(zip(map(id, operation.results), results, strict=True))
        return [known[id(symptom)] for symptom in symptoms]

    values = list(given.values())
    jaxpr, consts = compat.open_jaxpr(jax.make_jaxpr(again)(*values))
    return Program(
        name="code that is not jitted",
        jaxpr=jaxpr,
        consts=consts,
        args=values,
        arguments=tuple(f"array {number}" for number in range(len(values))),
        results=tuple("result" if len(symptoms) == 1 else f"result {number}" for number in range(len(symptoms))),
        call=lambda: symptoms,
        retrace=lambda: jax.make_jaxpr(again)(*values),
        is_compiled=False,
    )


@contextmanager
def remembered(memory: Memory) -> Iterator[None]:
    """While open, operations outside of any trace are remembered, those of JAX's own compiled functions (`jnp.linalg.norm`) as one each."""
    with ExitStack() as undone:
        undone.enter_context(compat.eager_operations(memory.primitive))
        wrappers = memory.stand_ins

        def replace(owner: Any, name: str, value: Any, again: Any = None) -> None:
            wrapper = wrappers[id(value)] = wrappers.get(id(value)) or _Reporting(value, again or value, memory)
            setattr(owner, name, wrapper)
            undone.callback(setattr, owner, name, value)

        for module in [module for name, module in sys.modules.items() if name == "jax" or name.startswith("jax.")]:
            for name, value in list(vars(module).items()):
                if is_jitted(value) or isinstance(value, jax.custom_jvp | jax.custom_vjp):
                    replace(module, name, value)
        # The operators call compiled functions that no module's name leads to.
        array = compat.array_type()
        for name in _OPERATORS:
            replace(array, name, getattr(array, name), _operator(name))
        for name in _READS:
            original = getattr(array, name)
            setattr(array, name, _reading(original, memory))
            undone.callback(setattr, array, name, original)
        yield


def _operator(name: str) -> Callable[..., Any]:
    """An operator for whatever stands on its left: an array when it ran, a tracer when it is run again."""
    return lambda left, *others: getattr(left, name)(*others)


def _reading(original: Callable[..., Any], memory: Memory) -> Callable[..., Any]:
    @functools.wraps(original)
    def reading(array: Any, *args: Any, **kwargs: Any) -> Any:
        memory.read(array)
        return original(array, *args, **kwargs)

    return reading


class _Reporting:
    """A function of JAX's own, under every name that it has, which says when it ran outside of any trace."""

    def __init__(self, function: Any, again: Any, memory: Memory):
        self._function, self._again, self._memory = function, again, memory
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self._function(*args, **kwargs)
        if not isinstance(out, Tracer):
            self._memory.function(self._again, args, kwargs, out)
        return out

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __repr__(self) -> str:
        return repr(self._function)

    def __reduce__(self) -> Any:
        # A pickle holds the function itself.
        return pickle.loads, (pickle.dumps(self._function),)
