"""Code that is not jitted: its operations are remembered as they run; those that a bad value came from are the program to locate it in.

The last operations are kept with their operands, within a bound. Now and then, and at the end, the results that the program still holds are
looked at, and so is every number that it reads. A NaN among them is a symptom; an infinity is not, since a mask is one in passing.
"""

from __future__ import annotations

import functools
import math
import pickle
import sys
import time
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from nandetect import compat, finite
from nandetect.after_jax import after_each_of_jax
from nandetect.program import Program, is_jitted
from nandetect.recorder import flatten
from nandetect.records import Event, Report
from nandetect.speed.reads import Reads
from nandetect.watch import working

# Operations that are remembered, and bytes of what they gave; and those that are looked at when many came between two looks.
_OPERATIONS = 4_000
_BYTES = 2**28
_LATEST = 256
_TREES = 100
# Operations between two glances at the clock, seconds between two looks, and the share of the time that looking may take.
_GLANCE = 64
_SECONDS = 0.25
_SHARE = 0.01
# What the program's arrays are computed with where it calls no function by name.
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod")
_OPERATORS = (*(f"__{side}{name}__" for name in _BINARY for side in ("", "r")), "__neg__", "__abs__", "__getitem__")
_OF_UFUNCS = ("__call__", "reduce", "accumulate", "at", "reduceat", "outer")
# What only moves values: of ones that are known to be finite it makes finite ones (an index out of bounds is clamped).
_MOVES = frozenset({"__getitem__", "device_put", "copy", "copy_p"})
# The kinds of dtypes that no NaN is of.
_COUNTS = ("b", "i", "u")
# How a program reads a number.
_READS = ("__float__", "__format__", "__str__", "__repr__", "__array__", "item", "tolist")


class Operation(tuple[Any, ...]):
    """One operation that ran: a primitive and its parameters, or a function and the tree of its arguments; then its results and operands.

    All in one object: what is kept of every operation, Python's garbage collector goes through again and again.
    """

    __slots__ = ()
    what = property(itemgetter(0))
    how = property(itemgetter(1))
    place = property(itemgetter(2))
    size = property(itemgetter(3))
    when = property(itemgetter(4))
    _split = property(itemgetter(5))

    @property
    def results(self) -> Sequence[Any]:
        """The arrays that it gave."""
        return self[6 : self._split]

    @property
    def operands(self) -> Sequence[Any]:
        """What it was given."""
        return self[self._split :]

    def run(self, operands: Sequence[Any]) -> Sequence[Any]:
        """Do it again, on these."""
        if isinstance(self.how, dict):
            return compat.rebind(self.what, self.how, operands)
        args, kwargs = jax.tree.unflatten(self.how, operands)
        return jax.tree.leaves(self.what(*args, **kwargs))


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
        # The results of those that are not known to be finite, by their ids.
        self._open: set[int] = set()
        # Trees of arguments, each once.
        self._trees: dict[Any, Any] = {}
        # How many operations had been seen when all since the look before were looked at, and when the latest were.
        self._seen_at_look = self._seen_at_glimpse = 0
        self._looked = time.perf_counter()
        self._look_seconds = 0.0
        self.reads = Reads()

    def latest(self, count: int) -> list[Operation]:
        """The last operations, that many at most."""
        return list(islice(reversed(self._operations), count))[::-1]

    def primitive(self, primitive: Any, operands: Sequence[Any], params: dict[str, Any], out: Any) -> None:
        """An operation ran by itself."""
        if not working.now and (primitive.name not in _MOVES or self.may_be_bad(operands)):
            self._enter(primitive, params, operands, out if primitive.multiple_results else (out,))

    def function(self, function: Any, tree: Any, operands: Sequence[Any], out: Any) -> None:
        """A compiled function of JAX's own ran on arguments of this tree."""
        trees = self._trees
        if tree not in trees:
            # Lists of arrays that grow have as many trees.
            self._trees = trees = {**trees, tree: tree} if len(trees) < _TREES else {tree: tree}
        self._enter(function, trees[tree], operands, (out,) if isinstance(out, jax.Array) else flatten(out)[0])

    def may_be_bad(self, operands: Sequence[Any]) -> bool:
        """Whether any of these was made by an operation that is remembered, and not seen to be finite since."""
        return not self._open.isdisjoint(map(id, operands))

    def _enter(self, what: Any, how: Any, operands: Sequence[Any], results: Sequence[Any]) -> None:
        size = 0
        for result in results:
            if isinstance(result, jax.Array):
                if isinstance(result, Tracer):
                    return
                size += 4 * math.prod(result.shape)
                if getattr(result.dtype, "kind", "") not in _COUNTS:
                    self._open.add(id(result))
        operations = self._operations
        operations.append(Operation((what, how, compat.here(), size, time.perf_counter(), 6 + len(results), *results, *operands)))
        self._bytes += size
        while self._bytes > _BYTES or len(operations) > _OPERATIONS:
            gone = operations.popleft()
            self._bytes -= gone.size
            for result in gone.results:
                self._open.discard(id(result))
        self.seen += 1
        if self.seen % _GLANCE == 0:
            self._glance()

    def _glance(self) -> None:
        """Look where that is cheap beside the time since the last look; at the latest operations before the first of them is forgotten."""
        now = time.perf_counter()
        if now - self._looked > max(_SECONDS, self._look_seconds / _SHARE):
            self.look()
        elif self.seen - self._seen_at_glimpse > _OPERATIONS // 2:
            self._look_at(_LATEST)

    def forget(self) -> None:
        """Start anew."""
        self._operations.clear()
        self._open.clear()
        self._bytes = 0

    def look(self) -> None:
        """Look at the results that the program still holds. Tells of the first NaN that an operation made."""
        fresh, self._seen_at_look = self.seen - self._seen_at_look, self.seen
        self._look_seconds = self._look_at(fresh)
        self._looked = time.perf_counter()

    def _look_at(self, count: int) -> float:
        """Look at the last `count` operations, those of them that could be run again. Gives the seconds that looking took."""
        began = time.perf_counter()
        self._seen_at_glimpse = self.seen
        held = _held(self.latest(count))
        waits = time.perf_counter()
        # The program would have waited for them anyway.
        jax.block_until_ready(held)
        waited = time.perf_counter() - waits
        states = _states(held)
        self._open.difference_update(id(result) for result, state in zip(held, states, strict=True) if state == finite.FINITE)
        bad = [result for result, state in zip(held, states, strict=True) if state == finite.NAN]
        seconds = time.perf_counter() - began - waited
        self.seconds += seconds
        if bad:
            self._find(bad)
        return seconds

    def read(self, number: Any, read: Callable[[], Any]) -> Any:
        """The program reads a number, to print it or to go by it: a NaN is a symptom, held or not."""
        began = time.perf_counter()
        number.block_until_ready()
        ready = time.perf_counter()
        with working:
            out = read()
        done = time.perf_counter()
        try:
            if out != out if type(out) is float else number.size == 1 and finite.can_be_bad(number) and finite.NAN in _states([number]):
                self._symptom(number)
        finally:
            self.reads.enter(began, ready - began, time.perf_counter() - done)
        return out

    def _symptom(self, number: Any) -> None:
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


def _states(results: Sequence[Any]) -> list[int]:
    """What each holds, as in `finite`."""
    with working, compat.outside_of_traces():
        return finite.states(results)


def _held(operations: Sequence[Operation]) -> list[Any]:
    """The results that somebody else holds too: those with more references than are remembered here, by the last operations."""
    own = Counter(id(value) for operation in operations for values in (operation.operands, operation.results) for value in values)
    # What counting itself adds differs between versions of Python.
    ((_, alone),) = _counted([Operation((None, None, None, 0, 0.0, 7, object()))])
    return [result for result, count in _counted(operations) if count > own[id(result)] + alone - 1 and finite.can_be_bad(result)]


def _counted(operations: Sequence[Operation]) -> Iterator[tuple[Any, int]]:
    """The results, and how many references there are to each."""
    for operation in operations:
        for result in operation.results:
            yield result, sys.getrefcount(result)


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

        def replace(owner: Any, name: str, value: Any, stand_in: Any) -> None:
            setattr(owner, name, stand_in)
            undone.callback(setattr, owner, name, value)

        def replace_in(module: types.ModuleType) -> None:
            for name, value in list(vars(module).items()):
                if is_jitted(value) or isinstance(value, jax.custom_jvp | jax.custom_vjp):
                    if id(value) not in wrappers:
                        wrappers[id(value)] = _StandIn(value, _reporting(value, value, memory))
                    replace(module, name, value, wrappers[id(value)])
                elif isinstance(value, _StandIn):
                    # It was imported from where it had been replaced already.
                    replace(module, name, value.original, value)

        for module in [module for name, module in sys.modules.items() if name == "jax" or name.startswith("jax.")]:
            replace_in(module)
        undone.enter_context(after_each_of_jax(replace_in))
        # The methods of `jnp.add` and its like, and the operators, call compiled functions that no module's name leads to.
        for name in _OF_UFUNCS:
            original = vars(jax.numpy.ufunc)[name]
            replace(jax.numpy.ufunc, name, original, _reporting(original, original, memory))
        array = compat.array_type()
        for name in _OPERATORS:
            original = getattr(array, name)
            replace(array, name, original, _reporting(original, _operator(name), memory))
        for name in _READS:
            original = getattr(array, name)
            replace(array, name, original, _reading(original, memory))
        yield


def _operator(name: str) -> Callable[..., Any]:
    """An operator for whatever stands on its left: an array when it ran, a tracer when it is run again."""
    return lambda left, *others: getattr(left, name)(*others)


def _reporting(function: Any, again: Any, memory: Memory) -> Callable[..., Any]:
    """A function of JAX's own which says when it ran outside of any trace; run again, it is `again`."""
    moves = getattr(function, "__name__", "") in _MOVES

    @functools.wraps(function, updated=())
    def reporting(*args: Any, **kwargs: Any) -> Any:
        if working.now:
            return function(*args, **kwargs)
        operands, tree = flatten((args, kwargs))
        for operand in operands:
            if isinstance(operand, Tracer):
                return function(*args, **kwargs)
        # What it is made of is not remembered beside it.
        working.now = True
        try:
            out = function(*args, **kwargs)
        finally:
            working.now = False
        # An operator may leave it to what stands on its right.
        if out is not NotImplemented and (not moves or memory.may_be_bad(operands)):
            memory.function(again, tree, operands, out)
        return out

    return reporting


def _reading(original: Callable[..., Any], memory: Memory) -> Callable[..., Any]:
    @functools.wraps(original)
    def reading(array: Any, *args: Any, **kwargs: Any) -> Any:
        read = functools.partial(original, array, *args, **kwargs)
        return read() if working.now or array.is_deleted() else memory.read(array, read)

    return reading


class _StandIn:
    """A function of JAX's own, under every name that it has, called by way of another."""

    def __init__(self, function: Any, call: Callable[..., Any]):
        self.original, self._call = function, call
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __repr__(self) -> str:
        return repr(self.original)

    def __reduce__(self) -> Any:
        # A pickle holds the function itself.
        return pickle.loads, (pickle.dumps(self.original),)
