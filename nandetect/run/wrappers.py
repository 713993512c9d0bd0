"""Wrappers around JAX's own functions and operators, and around whatever reads a number, while code that is not jitted is watched: each
tells `EagerWatch` of what ran."""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeGuard

import jax
import numpy as np
from jax.core import Tracer

from nandetect import compat, tracebacks
from nandetect.guarding.recorder import flatten
from nandetect.guarding.working import working
from nandetect.program import rule_lines
from nandetect.program.trace import is_jitted
from nandetect.run import ahead, buffers
from nandetect.run.eager import MOVES, EagerWatch
from nandetect.run.import_hook import after_each_of_jax

# What makes of a function one that computes on all devices: run outside of any trace, it is one operation.
_MAPPINGS = ("shard_map", "smap")
# The operators of arrays; below, how a class spells each for what stands on its left, and on its right.
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
_OF_TWO = tuple(f"__{side}{name}__" for name in _BINARY for side in ("", "r"))
_OPERATORS = (*_OF_TWO, "__divmod__", "__rdivmod__", "__neg__", "__pos__", "__abs__", "__round__", "__getitem__")
_OF_UFUNCS = ("__call__", "reduce", "accumulate", "at", "reduceat", "outer")
# How a program reads numbers, to go by them or to show them; and how else they leave it.
_READS = ("__float__", "__format__", "__str__", "__repr__", "__array__", "item", "tolist")
_HANDS = ("__int__", "__complex__", "__reduce__", "__dlpack__", "tobytes")
# What may stand on an operator's right so that nothing but this operator is at work: no tracer, and nothing with operators of its own.
_PLAIN = frozenset({compat.array_type(), float, int, bool, np.ndarray, np.float32, np.float64})
# By their number, the trees of arguments that are leaves.
_TREES: list[Hashable] = [flatten(((0,) * count, {}))[1] for count in range(4)]


@contextmanager
def logged(eager: EagerWatch) -> Iterator[None]:
    """While open, operations outside of any trace are logged, those of JAX's own compiled functions (`jnp.linalg.norm`) as one each."""
    with ExitStack() as undone:
        undone.enter_context(compat.eager_operations(eager.primitive, working))
        undone.enter_context(rule_lines.of_what_is_not_jitted())
        replace = functools.partial(_replace, undone)
        for module in [module for name, module in sys.modules.items() if name == "jax" or name.startswith("jax.")]:
            _replace_in(module, eager, replace)
        undone.enter_context(after_each_of_jax(functools.partial(_replace_in, eager=eager, replace=replace)))
        replace(jax, "device_put", jax.device_put, _reporting(jax.device_put, jax.device_put, eager))
        # The methods of `jnp.add` and its like, and the operators, call compiled functions that no module's name leads to.
        for name in _OF_UFUNCS:
            original = vars(jax.numpy.ufunc)[name]
            replace(jax.numpy.ufunc, name, original, _reporting(original, original, eager))
        array = compat.array_type()
        # What a program iterates over is taken apart by a method that tracers do not have.
        replace(array, "_unstack", array._unstack, _reporting(array._unstack, jax.numpy.unstack, eager))
        for name in _OPERATORS:
            original, again = getattr(array, name), _operator(name)
            reporting = _reporting(original, again, eager)
            replace(array, name, original, _of_two(original, reporting, again, eager) if name in _OF_TWO else reporting)
        for name in (*_READS, *_HANDS):
            original = getattr(array, name)
            replace(array, name, original, _reading(original, eager, name in _READS))
        replace(array, "__bool__", array.__bool__, _asking(array.__bool__, eager))
        ahead.watch(eager, replace)
        undone.enter_context(buffers.watched(eager.taken, working))
        yield


def _replace(undone: ExitStack, owner: object, name: str, original: object, wrapper: object) -> None:
    setattr(owner, name, wrapper)
    undone.callback(setattr, owner, name, original)


def _replace_in(module: types.ModuleType, eager: EagerWatch, replace: Callable[[object, str, object, object], None]) -> None:
    """Put wrappers in place of the compiled functions that a module of JAX's has names for."""
    for name, value in list(vars(module).items()):
        # JAX itself maps each operation of a function that is mapped, in a program that it keeps by the function.
        maps = not compat.is_private(module) and _maps_over_devices(value)
        if maps or _runs_as_one(value):
            if id(value) not in eager.wrappers:
                reporting = _mapping(value, eager) if maps else _reporting(value, value, eager)
                eager.wrappers[id(value)] = _Wrapper(value, reporting)
            replace(module, name, value, eager.wrappers[id(value)])
            # What a function with a derivative of its own calls while it is differentiated, no module's name leads to.
            if isinstance(value, jax.custom_jvp | jax.custom_vjp) and is_jitted(value.fun):
                replace(value, "fun", value.fun, _reporting(value.fun, value.fun, eager))
        elif isinstance(value, _Wrapper):
            # It was imported from where it had been replaced already.
            replace(module, name, value.original, value)


def _runs_as_one(value: object) -> TypeGuard[Callable[..., object]]:
    """Whether it is a function of JAX's own that computes in one compiled program."""
    return is_jitted(value) or isinstance(value, jax.custom_jvp | jax.custom_vjp)


def _maps_over_devices(value: object) -> TypeGuard[Callable[..., Callable[..., object]]]:
    """Whether it is `jax.shard_map`, of which there are several."""
    return isinstance(value, types.FunctionType) and value.__name__ in _MAPPINGS and value.__module__.startswith("jax.")


def _operator(name: str) -> Callable[..., object]:
    """An operator for whatever stands on its left: an array when it ran, a tracer when it is run again."""
    return lambda left, *others: getattr(left, name)(*others)


def _reporting(function: Callable[..., object], again: Callable[..., object], eager: EagerWatch) -> Callable[..., object]:
    """A function of JAX's own which says when it ran outside of any trace; run again, it is `again`."""
    moves = getattr(function, "__name__", "") in MOVES

    @functools.wraps(function, updated=())
    def reporting(*args: object, **kwargs: object) -> object:
        if working.now:
            return function(*args, **kwargs)
        try:
            if not kwargs and len(args) < len(_TREES) and _PLAIN.issuperset(map(type, args)):
                operands, tree = args, _TREES[len(args)]
            else:
                operands, tree = flatten((args, kwargs))
                for operand in operands:
                    if isinstance(operand, Tracer):
                        return function(*args, **kwargs)
                tree = eager.once(tree)
            # The operations that it is made of are not logged beside it.
            working.now = 1
            try:
                out = function(*args, **kwargs)
            finally:
                working.now = 0
            # An operator may leave the work to what stands on its right: then it returns NotImplemented.
            if out is not NotImplemented and (not moves or (out is not operands[0] and eager.log.may_be_bad(operands))):
                eager.function(again, tree, _with_masks(operands) if moves else operands, out)
            return out
        except BaseException as error:
            tracebacks.hide(error)
            raise

    return reporting


def _mapping(mapping: Callable[..., Any], eager: EagerWatch) -> Callable[..., object]:
    """The functions that `jax.shard_map` gives say when they ran outside of any trace."""

    @functools.wraps(mapping)
    def mapped(*function: Callable[..., object] | None, **options: object) -> object:
        made = mapping(*function, **options)
        if function and function[0] is not None:
            return _reporting(made, made, eager)
        # `@jax.shard_map(mesh=...)`, which gives a decorator.
        return lambda decorated: mapped(decorated, **options)

    return mapped


def _with_masks(operands: Sequence[object]) -> list[object]:
    """The same, with masks as numpy's arrays: what they choose is to be known when it is run again."""
    with working:
        return [np.asarray(x) if _is_mask(x) else x for x in operands]


def _is_mask(x: object) -> bool:
    return isinstance(x, jax.Array) and x.dtype == bool and bool(x.ndim) and x.is_fully_addressable


def _of_two(
    operator: Callable[..., object], reporting: Callable[..., object], again: Callable[..., object], eager: EagerWatch
) -> Callable[..., object]:
    """`reporting` for an operator on two operands, faster where both are plain: most operations of a program are such."""

    enter = eager.log.enter_of_two

    @functools.wraps(operator)
    def of_two(left: object, right: object, *others: object) -> object:
        if working.now:
            return operator(left, right, *others)
        if others or type(right) not in _PLAIN:
            return reporting(left, right, *others)
        try:
            working.now = 1
            try:
                out = operator(left, right)
            finally:
                working.now = 0
            try:
                enter(again, _TREES[2], left, right, out)
            except Exception as error:
                eager.unseen.failed(error, "operation")
            return out
        except BaseException as error:
            tracebacks.hide(error)
            raise

    return of_two


def _reading(original: Callable[..., object], eager: EagerWatch, is_timed: bool) -> Callable[..., object]:
    @functools.wraps(original)
    def reading(array: jax.Array, *args: object, **kwargs: object) -> object:
        try:
            if working.now or array.is_deleted():
                return original(array, *args, **kwargs)
            return eager.read(array, functools.partial(original, array, *args, **kwargs), is_timed)
        except BaseException as error:
            tracebacks.hide(error)
            raise

    return reading


def _asking(original: Callable[[jax.Array], bool], eager: EagerWatch) -> Callable[[jax.Array], bool]:
    @functools.wraps(original)
    def asking(array: jax.Array) -> bool:
        if not working.now:
            eager.asked.note(array)
        try:
            return original(array)
        except BaseException as error:
            tracebacks.hide(error)
            raise

    return asking


class _Wrapper:
    """A function of JAX's own, under every name that it has, called by way of another."""

    def __init__(self, function: Callable[..., object], call: Callable[..., object]):
        self.original, self._call = function, call
        self._is_method = hasattr(type(function), "__get__")
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: object, **kwargs: object) -> object:
        try:
            return self._call(*args, **kwargs)
        except BaseException as error:
            tracebacks.hide(error)
            raise

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., object]:
        return types.MethodType(self, instance) if instance is not None and self._is_method else self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __repr__(self) -> str:
        return repr(self.original)

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        # A pickle holds the function itself.
        return pickle.loads, (pickle.dumps(self.original),)
