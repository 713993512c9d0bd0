"""What stands in for JAX's own functions, operators and readings while code that is not jitted is watched: it tells `Memory` of each."""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import jax
import numpy as np
from jax.core import Tracer

from nandetect import compat
from nandetect.guarding.recorder import flatten
from nandetect.guarding.working import working
from nandetect.program.trace import is_jitted
from nandetect.run.eager import MOVES, Memory
from nandetect.run.import_hook import after_each_of_jax

# What the program's arrays are computed with where it calls no function by name.
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
_OF_TWO = tuple(f"__{side}{name}__" for name in _BINARY for side in ("", "r"))
_OPERATORS = (*_OF_TWO, "__divmod__", "__rdivmod__", "__neg__", "__pos__", "__abs__", "__getitem__")
_OF_UFUNCS = ("__call__", "reduce", "accumulate", "at", "reduceat", "outer")
# How a program reads a number.
_READS = ("__float__", "__format__", "__str__", "__repr__", "__array__", "item", "tolist")
# What may stand on an operator's right so that nothing but this operator is at work: no tracer, and nothing with operators of its own.
_PLAIN = frozenset({compat.array_type(), float, int, bool, np.ndarray, np.float32, np.float64})
# The trees of as many arguments that are leaves.
_TREES = [flatten(((0,) * count, {}))[1] for count in range(4)]


@contextmanager
def remembered(memory: Memory) -> Iterator[None]:
    """While open, operations outside of any trace are remembered, those of JAX's own compiled functions (`jnp.linalg.norm`) as one each."""
    with ExitStack() as undone:
        undone.enter_context(compat.eager_operations(memory.primitive, working))
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
                    # What a function with a derivative of its own calls while it is differentiated, no module's name leads to.
                    if not is_jitted(value) and is_jitted(value.fun):
                        replace(value, "fun", value.fun, _reporting(value.fun, value.fun, memory))
                elif isinstance(value, _StandIn):
                    # It was imported from where it had been replaced already.
                    replace(module, name, value.original, value)

        for module in [module for name, module in sys.modules.items() if name == "jax" or name.startswith("jax.")]:
            replace_in(module)
        undone.enter_context(after_each_of_jax(replace_in))
        replace(jax, "device_put", jax.device_put, _reporting(jax.device_put, jax.device_put, memory))
        # The methods of `jnp.add` and its like, and the operators, call compiled functions that no module's name leads to.
        for name in _OF_UFUNCS:
            original = vars(jax.numpy.ufunc)[name]
            replace(jax.numpy.ufunc, name, original, _reporting(original, original, memory))
        array = compat.array_type()
        for name in _OPERATORS:
            original, again = getattr(array, name), _operator(name)
            reporting = _reporting(original, again, memory)
            replace(array, name, original, _of_two(original, reporting, again, memory) if name in _OF_TWO else reporting)
        for name in _READS:
            original = getattr(array, name)
            replace(array, name, original, _reading(original, memory))
        yield


def _operator(name: str) -> Callable[..., Any]:
    """An operator for whatever stands on its left: an array when it ran, a tracer when it is run again."""
    return lambda left, *others: getattr(left, name)(*others)


def _reporting(function: Any, again: Any, memory: Memory) -> Callable[..., Any]:
    """A function of JAX's own which says when it ran outside of any trace; run again, it is `again`."""
    moves = getattr(function, "__name__", "") in MOVES

    @functools.wraps(function, updated=())
    def reporting(*args: Any, **kwargs: Any) -> Any:
        if working.now:
            return function(*args, **kwargs)
        if not kwargs and len(args) < len(_TREES) and _PLAIN.issuperset(map(type, args)):
            operands, tree = args, _TREES[len(args)]
        else:
            operands, tree = flatten((args, kwargs))
            for operand in operands:
                if isinstance(operand, Tracer):
                    return function(*args, **kwargs)
            tree = memory.once(tree)
        # What it is made of is not remembered beside it.
        working.now = 1
        try:
            out = function(*args, **kwargs)
        finally:
            working.now = 0
        # An operator may leave it to what stands on its right.
        if out is not NotImplemented and (not moves or (out is not operands[0] and memory.window.may_be_bad(operands))):
            memory.function(again, tree, _with_masks(operands) if moves else operands, out)
        return out

    return reporting


def _with_masks(operands: Sequence[Any]) -> list[Any]:
    """The same, with masks as numpy's arrays: what they choose is to be known when it is run again."""
    with working:
        return [np.asarray(one) if isinstance(one, jax.Array) and one.dtype == bool and one.ndim else one for one in operands]


def _of_two(operator: Any, reporting: Callable[..., Any], again: Any, memory: Memory) -> Callable[..., Any]:
    """`reporting` for an operator on two operands, faster where both are plain: most operations of a program are such."""

    enter = memory.window.enter_of_two

    @functools.wraps(operator)
    def of_two(left: Any, right: Any, *others: Any) -> Any:
        if working.now:
            return operator(left, right, *others)
        if others or type(right) not in _PLAIN:
            return reporting(left, right, *others)
        working.now = 1
        try:
            out = operator(left, right)
        finally:
            working.now = 0
        enter(again, _TREES[2], left, right, out)
        return out

    return of_two


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
        self._is_method = hasattr(type(function), "__get__")
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return types.MethodType(self, instance) if instance is not None and self._is_method else self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __repr__(self) -> str:
        return repr(self.original)

    def __reduce__(self) -> Any:
        # A pickle holds the function itself.
        return pickle.loads, (pickle.dumps(self.original),)
