"""What stands beside a price: where, and how many more."""

from __future__ import annotations

import os
from pathlib import Path

from nandetect.program.sources import Place
from nandetect.records import Frame


def at(place: Frame | Place | None) -> str:
    """` at train.py:12`, relative to where the program runs; nothing where it is not known."""
    if place is None:
        return ""
    file, line = (place.file, place.line) if isinstance(place, Frame) else place[:2]
    path = Path(file)
    if path.is_relative_to(folder := os.getcwd()):
        path = path.relative_to(folder)
    return f" at {path}:{line}"


def more(count: int) -> str:
    """` and 3 more`, or nothing."""
    return f" and {count} more" if count else ""
