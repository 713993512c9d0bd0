"""Where results of operations that were not jitted came from: those that the log has are the program to locate it in."""

from __future__ import annotations

import cmath
import inspect
import math
import sys
import types
from collections.abc import Callable

import jax
import numpy as np

from nandetect import compat, effects, nonfinite, ownership
from nandetect.annotations import Array
from nandetect.errors import said
from nandetect.findings import finding
from nandetect.guarding import finite
from nandetect.records import Event, Finding, Report
from nandetect.run.operation_log import OperationLog
from nandetect.run.operations import Token, program

# Where JAX calls back from a computation to the host.
_CALLBACKS = frozenset(inspect.getfile(inspect.unwrap(function)) for function in (jax.pure_callback, jax.debug.callback))
# Where it finds out what a function is called that it transforms.
_NAMING = inspect.unwrap(jax.api_util.debug_info).__code__

# A result that the program holds, with what stands for it.
Held = tuple[Token, Array]


def located(log: OperationLog, bad: list[Held], may_be: Callable[[Event], bool] = lambda origin: True) -> Report | None:
    """Where these were made; None if they arrived from outside, if the origin is none that `may_be` one, or if there are none."""
    if not bad:
        return None
    # Only now: whoever finds nothing does not wait for all that locating needs to be imported.
    from nandetect.fixing.locate import prescribed
    from nandetect.locating.diagnose import diagnose

    tokens, values = [token for token, _ in bad], [value for _, value in bad]
    operations = log.origins(tokens)
    with effects.replay_settings(), effects.muted_effects():
        # A report takes many times as long as its origin, and most of what is looked into arrived.
        traced = program(operations, tokens, log.kept(), values)
        report = diagnose(
            traced,
            wanted=lambda origin: origin.primitive not in ("<input>", "<literal>") and may_be(origin),
        )
    return report and prescribed(traced, report)


def located_inf(log: OperationLog, held: Held) -> Report | None:
    """Where an inf was made of finite numbers; None where it arrived or was written, whatever came of it since: that is state.

    Log-probabilities sum to -inf by way of exp(-inf) = 0, so that not only the origin must be free of what was written, but its cause too.
    """
    report = located(log, [held], _is_finite)
    return report if report is not None and all(map(_is_finite, report.cause[-1:])) else None


def _is_finite(told: Event) -> bool:
    """Whether what is told of has finite operands, at the element that is meant: no inf, and not nothing."""
    values = [operand.value for operand in told.operands]
    return all(math.prod(operand.shape) for operand in told.operands) and all(value is None or cmath.isfinite(value) for value in values)


def has_only_neginf(array: Array) -> bool:
    """Whether an array of several numbers is finite but for -inf: what cannot be, among log-probabilities."""
    values = nonfinite.host(array)
    return values.size > 1 and bool((np.real(values[nonfinite.bad(values)]) == -np.inf).all())


def arrived(log: OperationLog, bad: list[Held]) -> list[Array]:
    """What these came from that was given from outside as NaN."""
    return [value for value in given(log, bad) if finite.state(value) == finite.NAN]


def given(log: OperationLog, bad: list[Held]) -> list[Array]:
    """What these came from that was given from outside and was not finite."""
    kept = log.kept()
    operations = log.origins([token for token, _ in bad])
    values = [kept[id(operand)] for operation in operations for operand in operation.operands if id(operand) in kept]
    return [value for value in values if finite.can_be_bad(value) and finite.state(value) != finite.FINITE]


def not_located(log: OperationLog, bad: list[Held], error: Exception) -> Report | None:
    """The report of what is there and could not be located; None where it arrived from outside."""
    try:
        return None if arrived(log, bad) else _unlocated(bad[0][1], error)
    except Exception:
        return _unlocated(bad[0][1], error)


def _unlocated(value: Array, error: Exception) -> Report:
    count, size = int(nonfinite.nans(value).sum()), math.prod(value.shape)
    origin = Event(primitive="<unknown>", value="nan", reason="not located", count=count, size=size)
    note = f"the operations before it could not be run again ({said(error)}); jit the function that it is in"
    return Report(origin=origin, chain=(origin,), symptoms=("result",), reproduced=False, notes=(note,), label="code that is not jitted")


def notes(log: OperationLog, bad: list[Held]) -> list[Finding]:
    """The finding, which is no fault, that these results of operations with several stood beside what was used."""
    if not bad:
        return []
    operation = log.origins([bad[0][0]])[-1]
    frames = [frame for frame in compat.user_frames(operation.site) if ownership.is_users(frame.file)]
    where = f" at {frames[0].file.rsplit('/', 1)[-1]}:{frames[0].line}" if frames else ""
    name = getattr(operation.what, "name", None) or getattr(operation.what, "__name__", "an operation")
    return [
        finding(
            "non-finite",
            "note",
            f"a result of `{name}`{where} held nan; nothing that was read or computed with did",
            cause="a result that stands beside what was used was not finite",
            help="no fault where such a result is thrown away, as a sampler does with a proposal that it rejects",
        )
    ]


def is_in_callback() -> bool:
    """Whether a computation has called what runs now."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename in _CALLBACKS:
            return True
        frame = frame.f_back
    return False


def is_for_a_name() -> bool:
    """Whether JAX itself takes the text of what is read: of a function that it transforms, which holds arrays and has no name."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        # Below it nothing is called but what has a text, the user's own `__repr__` among them.
        if frame.f_code is _NAMING:
            return True
        frame = frame.f_back
    return False


def state_read(numbers: object) -> int:
    """The state (`finite.FINITE`, `INF`, `NAN`) of what was just read: the host has it now."""
    if not finite.can_be_bad(numbers):
        return finite.FINITE
    if isinstance(numbers, jax.Array) and not (numbers.is_fully_addressable or numbers.is_fully_replicated):
        return finite.state(numbers)
    if nonfinite.is_clean(numbers):
        return finite.FINITE
    return finite.NAN if nonfinite.nans(numbers).any() else finite.INF
