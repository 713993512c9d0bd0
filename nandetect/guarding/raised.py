"""A call that raised: where the NaN came from that made it, if one did."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import replace

from nandetect import effects
from nandetect.fixing.locate import prescribed
from nandetect.guarding.recorder import Arguments
from nandetect.interpret import callbacks
from nandetect.locating.checked import given_to_what_raised, seen_by_a_check
from nandetect.locating.diagnose import diagnose
from nandetect.program.trace import Program, is_compiled, trace
from nandetect.records import Report

_CHECKIFY = "jax.experimental.checkify"


def may_be_checks(step: Callable[..., object], error: BaseException) -> bool:
    """Whether an error can be that of a check of values. What a compiled step's own code raises, it raised while it was traced."""
    if isinstance(error, FloatingPointError):
        return True
    if is_compiled(step):
        code = getattr(inspect.unwrap(step), "__code__", None)
        return code is None or code not in _codes(error.__traceback__)
    checkify = sys.modules.get(_CHECKIFY)
    kinds = (RuntimeError, *([checkify.JaxRuntimeError] if checkify else []))
    return isinstance(error, kinds)


def located(step: Callable[..., object], arguments: Arguments, error: type[BaseException]) -> Report | None:
    """Where a bad value came from that a call made which raised; None where it made none that matters. Its checks are left out.

    Raises whatever running it again does.
    """
    args, kwargs = arguments
    with effects.replay_settings(), effects.muted_effects():
        program = callbacks.recorded(trace(_unchecked(step, error), args, kwargs), repeat=False, tried=True)
        report = _behind_its_checks(program)
    if report is None:
        return None
    report = prescribed(program, report)
    return replace(report, notes=(*report.notes, f"the call raised {error.__name__}"))


def _behind_its_checks(program: Program) -> Report | None:
    try:
        sound, has_raised = callbacks.without_checks(program)
    # It raises all the same: a check stands where it cannot be taken out, inside of a primitive that another library lowers.
    except Exception:
        report = given_to_what_raised(program)
        if report is None:
            raise
        return report
    report = diagnose(sound)
    if has_raised and not _is_nan(report):
        # Of what it would have returned nothing is NaN, but something in it may have been, which the check saw.
        seen = seen_by_a_check(sound)
        if seen is None and report is None:
            strict = diagnose(sound, strict=True)
            seen = strict if _is_nan(strict) else None
        report = seen or report
    return report


def _is_nan(report: Report | None) -> bool:
    return report is not None and report.origin.value == "nan"


def _unchecked(step: Callable[..., object], error: type[BaseException]) -> Callable[..., object]:
    """A step that does not throw what `checkify` found, where that is what it raised."""
    checkify = sys.modules.get(_CHECKIFY)
    if checkify is None or is_compiled(step) or not issubclass(error, checkify.JaxRuntimeError):
        return step
    checked = checkify.checkify(step)
    return functools.wraps(step)(lambda *args, **kwargs: checked(*args, **kwargs)[1])


def _codes(trace: types.TracebackType | None) -> set[types.CodeType]:
    codes = set()
    while trace is not None:
        codes.add(trace.tb_frame.f_code)
        trace = trace.tb_next
    return codes
