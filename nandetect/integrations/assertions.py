"""Assertions for tests: what a function returns, or its gradient, is finite; else the report of where it was born is the message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import jax
import numpy as np

from nandetect import nonfinite
from nandetect.annotations import Pytree
from nandetect.errors import NonFiniteError, UsageError
from nandetect.guarding import finite, guard
from nandetect.program.trace import keystr
from nandetect.records import Report

# How many leaves a message lists.
_SHOWN = 8

Returned = TypeVar("Returned")


def assert_finite(value: Pytree, *args: object, **kwargs: object) -> Pytree:
    """Assert that a pytree is finite, or what a function returns for these arguments; returns it. The function is called once."""
    __tracebackhide__ = True
    is_call = args or kwargs or (callable(value) and jax.tree.leaves(value) == [value])
    result = _called(value, args, kwargs) if is_call else value
    bad = _bad(result)
    if bad:
        raise AssertionError(_listed(bad, "what it returned" if is_call else "the pytree"))
    return result


def assert_finite_grads(function: Callable[..., object], *args: object, **kwargs: object) -> Pytree:
    """Assert that the gradient of a scalar function is finite in each of its arguments that hold floating numbers; returns it."""
    __tracebackhide__ = True
    positions = tuple(position for position, arg in enumerate(args) if any(map(_is_float, jax.tree.leaves(arg))))
    if not positions:
        raise UsageError("assert_finite_grads wants an argument that holds floating numbers: assert_finite_grads(loss, params, batch)")
    gradient = _called(jax.grad(function, positions, allow_int=True), args, kwargs)
    bad = _bad(dict(zip(positions, gradient, strict=True)))
    if bad:
        raise AssertionError(_listed(bad, "the gradient"))
    return gradient[0] if len(positions) == 1 else gradient


def _is_float(leaf: object) -> bool:
    return isinstance(leaf, float | complex) or nonfinite.is_inexact(leaf)


def _called(function: Callable[..., Returned], args: tuple[object, ...], kwargs: dict[str, object]) -> Returned:
    __tracebackhide__ = True
    reports: list[Report] = []
    try:
        result = guard.watched(function, 1, None, reports.append)[0](*args, **kwargs)
    except UsageError:
        # A function that JAX cannot trace is only called: its result can still be checked.
        return function(*args, **kwargs)
    except FloatingPointError as error:
        # Errors of another guard inside the function, or of JAX's own check, come before this one's report.
        reports += [error.report] if isinstance(error, NonFiniteError) else []
        if not reports:
            raise
        raise AssertionError(str(replace(reports[0], step=None))) from None
    if reports:
        raise AssertionError(str(replace(reports[0], step=None)))
    return result


def _bad(tree: Pytree) -> list[tuple[str, Pytree]]:
    """The leaves that are not finite, with their paths."""
    leaves = [(keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0] if _is_float(leaf)]
    arrays = [np.asarray(leaf) if isinstance(leaf, float | complex) else leaf for _, leaf in leaves]
    return [leaf for leaf, state in zip(leaves, finite.states(arrays), strict=True) if state != finite.FINITE]


def _listed(bad: list[tuple[str, Pytree]], what: str) -> str:
    lines = [f"{what} is not finite"]
    for path, leaf in bad[:_SHOWN]:
        where = nonfinite.bad(leaf)
        nan, first = int(nonfinite.nans(leaf).sum()), [int(index) for index in np.argwhere(where)[0]]
        counts = ", ".join(f"{count:,} {name}" for count, name in ((nan, "nan"), (int(where.sum()) - nan, "inf")) if count)
        lines.append(f"  {path or 'it'}: {counts} of {where.size:,}" + (f", first at {first}" if first else ""))
    return "\n".join(lines + ([f"  and {len(bad) - _SHOWN:,} more"] if len(bad) > _SHOWN else []))
