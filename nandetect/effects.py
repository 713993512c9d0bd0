"""How a step is run once more without being noticed: JAX's own checks off, and what it does to its host left out.

Beside `compat` and `program/rule_lines`, the one module that says `jax._src`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax._src import api, callback, debugging, dispatch
from jax.core import Tracer

from nandetect.annotations import Array
from nandetect.errors import Unrepeatable


class Aval(Protocol):
    """What a callback is to return."""

    shape: tuple[int, ...]
    dtype: Any


@contextlib.contextmanager
def replay_settings() -> Iterator[None]:
    """JAX's own NaN and Inf checks off, whose very values a replay meets; and jit on, without which loops have no iterations."""
    # Since JAX 0.8, leaving `jax.debug_nans` turns the check of compiled functions off in this thread for good, whatever is set globally.
    hook = getattr(api, "_post_hook_state", None)
    before = hook.get_local() if hook is not None else None
    try:
        with jax.debug_nans(False), jax.debug_infs(False), jax.disable_jit(False):
            yield
    finally:
        if hook is not None:
            hook.set_local(before)


# Who is told of each `io_callback` that something stood in for, of the contexts that are open; None where nothing may.
_STOOD_IN: list[list[object] | None] = [None]
# What undoes the muting: replays of several threads may overlap, and the last to end undoes it.
_MUTED = contextlib.ExitStack()
_LOCK = threading.Lock()


@contextlib.contextmanager
def muted_effects(stood_in: list[object] | None = None) -> Iterator[None]:
    """While open, what a compiled program would do to its host is left out: `jax.debug` says nothing, an `io_callback` is not called.

    A compiled program looks these functions up each time it calls back. Where an `io_callback` returns something, `Unrepeatable` is raised;
    or, with a list, it gives back what it was given of that type (as a progress bar does), or zeros, and that is entered in the list.
    """
    jax.effects_barrier()
    with _LOCK:
        if len(_STOOD_IN) == 1:
            _mute()
        _STOOD_IN.append(_STOOD_IN[-1] if stood_in is None else stood_in)
    try:
        yield
        jax.effects_barrier()
    except BaseException:
        # What failed here is not to be waited for by the program, nor at its end.
        dispatch.runtime_tokens.clear()
        raise
    finally:
        with _LOCK:
            _STOOD_IN.pop()
            if len(_STOOD_IN) == 1:
                _MUTED.close()


def _mute() -> None:
    for primitive in (debugging.debug_callback_p, getattr(debugging, "debug_print_p", None)):
        if primitive is not None:
            _MUTED.callback(setattr, primitive, "impl", primitive.impl)
            primitive.impl = lambda *args, **params: ()
    _MUTED.callback(setattr, callback, "io_callback_impl", callback.io_callback_impl)
    callback.io_callback_impl = _muted_io


def _muted_io(*args: Array, result_avals: Sequence[Aval], **params: object) -> tuple[np.ndarray, ...]:
    stood_in = _STOOD_IN[-1]
    if not len(result_avals):
        return ()
    if stood_in is None:
        raise Unrepeatable("an io_callback returns what the step needs, and its effect is not repeated")
    stood_in.append(params.get("callback"))
    return stood_in_for(args, result_avals)


def settled(made: Sequence[Array]) -> Sequence[Array]:
    """These results, when they are there: few of the CPU's virtual devices compute at once, and a collective that waits for others keeps
    them from all else, until JAX ends the program."""
    for value in made:
        if isinstance(value, jax.Array) and not isinstance(value, Tracer) and len(value.sharding.device_set) > 1:
            value.block_until_ready()
    return made


def stood_in_for(args: Sequence[Array], results: Sequence[Aval]) -> tuple[np.ndarray, ...]:
    """What a callback that is not called seems to return: what it was given of that type (as a progress bar does), or zeros."""
    given = [[x for x in args if (np.shape(x), x.dtype) == (aval.shape, aval.dtype)] for aval in results]
    return tuple(np.asarray(alike[0]) if alike else np.zeros(aval.shape, aval.dtype) for alike, aval in zip(given, results, strict=True))
