"""How prices are said."""

from __future__ import annotations

import os
from pathlib import Path

from nandetect.program.sources import Place
from nandetect.records import Frame


def time(seconds: float) -> str:
    """`5.1 ms`, `71 us`, `1.3 s`: two digits, or as many as stand before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_two(seconds / size)} {unit}"
    return f"{_two(seconds * 1e6)} us"


def _two(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def rate(seconds: float) -> str:
    """Steps a second."""
    return f"{1 / seconds:,.0f}" if seconds <= 0.1 else f"{1 / seconds:.2g}"


def times(ratio: float) -> str:
    """`5.2 times`."""
    return f"{_two(ratio)} times"


def megabytes(count: float) -> str:
    """Of 10**6 bytes, in three digits."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


def at(place: Frame | Place | None) -> str:
    """` at train.py:12`, relative to where the program runs; nothing where it is not known."""
    if place is None:
        return ""
    file, line = (place.file, place.line) if isinstance(place, Frame) else place[:2]
    path = Path(file)
    if path.is_relative_to(here := os.getcwd()):
        path = path.relative_to(here)
    return f" at {path}:{line}"


def more(count: int) -> str:
    """` and 3 more`, or nothing."""
    return f" and {count} more" if count else ""
