"""Numpy takes an array's memory through Python's buffer protocol, past every method that the array has: this is where it is seen."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import jax

from nandetect import compat, tracebacks
from nandetect.annotations import Busy

# Before Python 3.12, which has a method for it: a class keeps the functions of its buffers behind a pointer at this offset, and the one
# that gives a buffer is the first of them.
_BUFFERS = 160
_GET = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)


# What is called with a capsule that goes: this one leaves a TypeError, and does nothing else.
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))
_RAISES = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p)


class _Failed(int):
    """The answer of a function that has failed, which must leave an exception behind: `left` does.

    What a callback raises, ctypes prints and forgets; so it is left by what goes when the answer has been read.
    """

    left: object

    def __new__(cls) -> Self:
        self = super().__new__(cls, -1)
        self.left = _capsule(id(cls), None, _RAISES)
        return self


@contextmanager
def watched(taken: Callable[[jax.Array], None], working: Busy) -> Iterator[None]:
    """While open, `taken` is told of each array whose memory is asked for, unless `working.now` is set. It must not raise: numpy would
    not hear it."""
    undo = (_by_method if sys.version_info >= (3, 12) else _by_slot)(compat.array_type(), taken, working)
    try:
        yield
    finally:
        undo()


def _by_method(kind: Any, taken: Callable[[jax.Array], None], working: Busy) -> Callable[[], None]:
    original = kind.__buffer__

    def get(array: jax.Array, flags: int) -> memoryview:
        try:
            buffer = original(array, flags)
        except BaseException as error:
            tracebacks.hide(error)
            raise
        if not working.now:
            taken(array)
        return buffer

    kind.__buffer__ = get
    return lambda: setattr(kind, "__buffer__", original)


def _by_slot(kind: type, taken: Callable[[jax.Array], None], working: Busy) -> Callable[[], None]:
    functions = ctypes.c_void_p.from_address(id(kind) + _BUFFERS).value
    if sys.implementation.name != "cpython" or not functions:
        return lambda: None
    slot = ctypes.c_void_p.from_address(functions)
    before = slot.value
    original = _GET(before or 0)

    def get(array: jax.Array, view: int, flags: int) -> int:
        try:
            result = original(array, view, flags)
            if not working.now:
                taken(array)
            return result
        # An array that has no buffer (bfloat16, spread over devices): numpy then asks for `__array__`, others raise.
        except BaseException:
            return _Failed()

    replaced = _GET(get)
    slot.value = ctypes.cast(replaced, ctypes.c_void_p).value

    def undo(replaced: object = replaced) -> None:
        slot.value = before

    return undo
