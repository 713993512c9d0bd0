"""Where results of operations that were not jitted came from: those that the log has are the program to locate it in."""

from __future__ import annotations

import cmath
import math

import jax
import numpy as np

from nandetect import effects, nonfinite
from nandetect.annotations import Array
from nandetect.errors import said
from nandetect.guarding import finite
from nandetect.records import Event, Report
from nandetect.run.operation_log import OperationLog
from nandetect.run.operations import Token, program

# A result that the program holds, with what stands for it.
Held = tuple[Token, Array]


def located(log: OperationLog, bad: list[Held]) -> Report | None:
    """Where these were made; None if they arrived from outside, or there are none."""
    if not bad:
        return None
    # Only now: whoever finds nothing does not wait for all that locating needs to be imported.
    from nandetect.locating.locate import diagnose

    tokens, values = [token for token, _ in bad], [value for _, value in bad]
    operations = log.origins(tokens)
    with effects.replay_settings(), effects.muted_effects():
        report = diagnose(program(operations, tokens, log.kept(), values))
    return None if report is None or report.origin.primitive in ("<input>", "<literal>") else report


def located_inf(log: OperationLog, held: Held) -> Report | None:
    """Where an inf was made of finite numbers; None where it arrived or was written, whatever came of it since: that is state.

    Log-probabilities sum to -inf by way of exp(-inf) = 0, so that not only the origin must be free of what was written, but its cause too.
    """
    report = located(log, [held])
    if report is None or not all(map(_is_finite, (report.origin, *report.cause[-1:]))):
        return None
    return report


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


def state_read(numbers: object) -> int:
    """The state (`finite.FINITE`, `INF`, `NAN`) of what was just read: the host has it now."""
    if not finite.can_be_bad(numbers):
        return finite.FINITE
    if isinstance(numbers, jax.Array) and not (numbers.is_fully_addressable or numbers.is_fully_replicated):
        return finite.state(numbers)
    if nonfinite.is_clean(numbers):
        return finite.FINITE
    return finite.NAN if nonfinite.nans(numbers).any() else finite.INF
