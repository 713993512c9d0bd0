"""How a state came to what broke a step: the number that the cause names, and what it was before the calls that were run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nandetect import nonfinite, wording
from nandetect.guarding.recorder import Arguments, Call
from nandetect.program.trace import trace
from nandetect.records import Report


def told(report: Report, step: Callable[..., object], call: Call, arguments: Arguments, first: Call, start: Sequence[object]) -> Report:
    """A report whose cause is an element of the state, with what that was in `start`, the first call's arguments; others as they are."""
    cause = report.cause[-1] if report.cause else None
    updates = call.number - first.number
    if cause is None or cause.argument is None or cause.source is not None or not updates or call.links is None:
        return report
    names = trace(step, *arguments).arguments
    index = names.index(cause.argument) if cause.argument in names else -1
    if index not in call.links.ins or index >= len(start):
        return report
    before = nonfinite.host(start[index])
    if before.shape != cause.shape:
        return report
    was = nonfinite.scalar(before[cause.index])
    reason = f"{cause.reason}, {wording.counted(updates, 'update')} before it was {wording.number(was, cause.dtype)}"
    return replace(report, cause=(*report.cause[:-1], replace(cause, reason=reason)))
