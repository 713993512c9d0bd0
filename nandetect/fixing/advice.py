"""Advice on what no other form can stand in for by itself: matrices, loops, types. Told from the fault and its causes, and not proven."""

from __future__ import annotations

from collections.abc import Callable

from nandetect import primitives
from nandetect.records import Report


def advice(report: Report) -> list[str]:
    """The codes of the hazards that a report shows by itself, the most telling first."""
    return [code for code, shows in _SHOWS if shows(report)]


def _carried(report: Report) -> bool:
    """Whether an earlier iteration of a loop made what overflowed in a later one."""
    earlier = [event for event in report.cause if any(primitives.named(kind).loops for kind, _ in event.context)]
    elsewhere = any(event.context != report.origin.context for event in earlier)
    return elsewhere and report.origin.value in ("inf", "-inf") and bool(report.origin.context)


def _solves(report: Report) -> bool:
    """Whether a division by a pivot that is 0 broke."""
    divides = report.origin.primitive == "triangular_solve" or report.origin.primitive == "div"
    return divides and any(event.primitive == "lu" for event in report.cause)


_SHOWS: tuple[tuple[str, Callable[[Report], bool]], ...] = (
    ("ND272", _solves),
    ("ND252", _carried),
    ("ND253", lambda report: report.origin.primitive == "exp" and report.origin.value == "inf" and report.origin.phase != "backward"),
)
