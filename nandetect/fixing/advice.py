"""Advice on what no other form can stand in for by itself: matrices, loops, types. Told from the fault and its causes, and not proven."""

from __future__ import annotations

from collections.abc import Callable

from nandetect import primitives
from nandetect.records import Report


def advice(report: Report) -> list[str]:
    """The codes of the hazards that a report shows by itself, the most telling first."""
    return [code for code, shows in _SHOWS if shows(report)]


def _carried(report: Report) -> bool:
    """Whether earlier iterations of a loop made what overflowed in a later one."""
    origin = report.origin
    if origin.value not in ("inf", "-inf") or not origin.context:
        return False
    within = [event for event in report.cause if any(primitives.named(kind).loops for kind, _ in event.context)]
    # What came from outside of the loop is no growth; of what stands in the later iteration itself, nothing else may be the cause.
    grew = len(within) == len(report.cause) > 0 and any(number > 0 for kind, number in origin.context if primitives.named(kind).loops)
    return grew or any(event.context != origin.context for event in within)


def _solves(report: Report) -> bool:
    """Whether a division by a pivot that is 0 broke."""
    divides = report.origin.primitive == "triangular_solve" or report.origin.primitive == "div"
    return divides and any(event.primitive == "lu" for event in report.cause)


_SHOWS: tuple[tuple[str, Callable[[Report], bool]], ...] = (
    ("ND272", _solves),
    ("ND252", _carried),
    ("ND253", lambda report: report.origin.primitive == "exp" and report.origin.value == "inf" and report.origin.phase != "backward"),
)
