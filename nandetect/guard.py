"""`guard`: the user's own step, called as it is, with its results judged a little later.

A small compiled check follows each step on the device; nothing waits for it. When one has found something, the arguments kept of that very
call are given to `locate`.
"""

from __future__ import annotations

import atexit
import functools
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect import compat, measure
from nandetect.errors import NonFiniteError
from nandetect.replay import locate

# Calls that may be under way, each holding its arguments, before the oldest is waited for.
WINDOW = 2


@dataclass(frozen=True)
class Call:
    """One call of the step: its arguments, and the state of each floating leaf of its result (0 finite, 1 inf, 2 NaN), still to be read."""

    number: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    states: Any


@jax.jit
def _states(leaves: list[Any]) -> Any:
    return jnp.array([jnp.where(jnp.any(jnp.isnan(x)), 2, jnp.where(jnp.all(jnp.isfinite(x)), 0, 1)) for x in leaves], jnp.int8)


class Guard:
    """What `guard` returns: callable like the step; `flush` judges what has been dispatched and not yet judged."""

    def __init__(self, step: Callable[..., Any]):
        functools.update_wrapper(self, step, updated=())
        self._step = step
        self._pending: deque[Call] = deque()
        self._accepted: set[tuple[int, int]] = set()
        self._calls = 0
        self._copies = compat.may_donate(step)
        flush = weakref.WeakMethod(self.flush)
        atexit.register(lambda: (method := flush()) and method())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        number, self._calls = self._calls, self._calls + 1
        given, named = _copied((args, kwargs)) if self._copies else (args, kwargs)
        try:
            out = self._step(*args, **kwargs)
        except FloatingPointError:
            # JAX's own check (`jax_debug_nans`) was faster; what it says is less.
            self._raise(Call(number, given, named, None))
            raise
        if self._copies and number == 0:
            self._copies = any(leaf.is_deleted() for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, jax.Array))
        leaves = [leaf for leaf in jax.tree.leaves(out) if measure.is_inexact(leaf)]
        if leaves and not any(isinstance(leaf, Tracer) for leaf in leaves):
            self._pending.append(Call(number, given, named, _states(leaves)))
        while len(self._pending) > WINDOW or (self._pending and self._pending[0].states.is_ready()):
            self._judge(self._pending.popleft())
        return out

    def flush(self) -> None:
        """Judge every call not yet judged. Raises `NonFiniteError` for the first that is at fault."""
        while self._pending:
            self._judge(self._pending.popleft())

    def _judge(self, call: Call) -> None:
        states = np.asarray(call.states)
        found = {(int(leaf), int(states[leaf])) for leaf in np.flatnonzero(states)}
        if found - self._accepted:
            self._raise(call)
            # Not a fault (a best loss that starts at inf): the same leaf in the same state is not looked at again.
            self._accepted |= found

    def _raise(self, call: Call) -> None:
        report = locate(self._step, *call.args, **call.kwargs)
        if report is not None:
            self._pending.clear()
            raise NonFiniteError(replace(report, step=call.number))


def _copied(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True) if isinstance(leaf, jax.Array) else leaf, tree)


def guard(step: Callable[..., Any]) -> Guard:
    """The same function with the same results, which raises `NonFiniteError` after a call that returned something non-finite.

    Its `.report` is what `locate` says of that call, and `.report.step` the 0-based number of the call. Results are read late, so the error
    comes up to two calls afterwards, or from `flush()`, which also runs at exit. Arguments that the step donates are copied first.
    """
    return Guard(step)
