"""`guard`: the user's own step, watched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from nandetect import compat, probe
from nandetect.errors import NonFiniteError
from nandetect.replay import locate


def guard(step: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, same results; raises `NonFiniteError` once a call has returned something non-finite."""

    @functools.wraps(step)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        out = step(*args, **kwargs)
        if not all(probe.is_clean(leaf) for leaf in jax.tree.leaves(out) if probe.is_inexact(leaf)):
            report = locate(step, *args, **kwargs)
            if report is not None:
                raise NonFiniteError(report)
        return out

    guarded.flush = lambda: None
    return guarded
