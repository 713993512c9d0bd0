"""Functions that a program compiles ahead of time, `jit(f).lower(x).compile()`: each call is logged as one operation outside of any trace.

Such a function is found in no namespace and cannot be traced again; what it was traced to when it was lowered is run in its stead.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
from jax import stages

from nandetect import compat, tracebacks
from nandetect.annotations import Array
from nandetect.guarding.recorder import flatten
from nandetect.guarding.working import working
from nandetect.run.eager import EagerWatch

Replace = Callable[[object, str, object, object], None]


def watch(eager: EagerWatch, replace: Replace) -> None:
    """From now on, tell `eager` of the calls of what is compiled ahead of time."""
    # By what was lowered, and by what was compiled of it, the same as a flat function that can be traced.
    again: weakref.WeakKeyDictionary[object, Callable[..., object]] = weakref.WeakKeyDictionary()
    lower, compile_, call = stages.Traced.lower, stages.Lowered.compile, stages.Compiled.__call__

    @functools.wraps(lower)
    def lowering(traced: stages.Traced, *args: object, **kwargs: object) -> stages.Lowered:
        try:
            lowered = lower(traced, *args, **kwargs)
        except BaseException as error:
            tracebacks.hide(error)
            raise
        if not working.now:
            try:
                again[lowered] = functools.partial(_flat, *compat.open_jaxpr(traced.jaxpr))
            except Exception as error:
                eager.unseen.failed(error, "lowered function")
        return lowered

    @functools.wraps(compile_)
    def compiling(lowered: stages.Lowered, *args: Any, **kwargs: Any) -> stages.Compiled:
        try:
            compiled = compile_(lowered, *args, **kwargs)
        except BaseException as error:
            tracebacks.hide(error)
            raise
        if lowered in again:
            again[compiled] = again[lowered]
        return compiled

    @functools.wraps(call)
    def calling(compiled: stages.Compiled, *args: object, **kwargs: object) -> object:
        try:
            if working.now:
                return call(compiled, *args, **kwargs)
            with working:
                out = call(compiled, *args, **kwargs)
            _log(eager, again.get(compiled, compiled), args, kwargs, out)
            return out
        except BaseException as error:
            tracebacks.hide(error)
            raise

    replace(stages.Traced, "lower", lower, lowering)
    replace(stages.Lowered, "compile", compile_, compiling)
    replace(stages.Compiled, "__call__", call, calling)


def _log(eager: EagerWatch, again: Callable[..., object], args: object, kwargs: object, out: object) -> None:
    try:
        operands, tree = flatten((args, kwargs))
    except Exception as error:
        eager.unseen.failed(error, "call of a function compiled ahead of time")
        return
    if any(isinstance(operand, jax.Array) and operand.is_deleted() for operand in operands):
        # It was donated to the call, which so cannot be made again: what it gave is as good as given from outside.
        eager.unseen.add("call", "of a function compiled ahead of time that takes its arguments")
        return
    eager.function(again, eager.once(tree), operands, out)


def _flat(jaxpr: compat.Jaxpr, consts: list[Array], *args: object, **kwargs: object) -> list[jax.Array]:
    return compat.as_function(jaxpr, consts)(*jax.tree.leaves((args, kwargs)))
