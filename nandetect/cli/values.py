"""The values of options, from what people write."""

from __future__ import annotations

import re

from nandetect.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(option: str, text: str) -> float:
    """A time: 30s, 1.5m, 500ms, 1h, or a number of seconds."""
    written = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not written or written[2] not in _UNITS:
        raise UsageError(f"{option} {text} is not a time: write 30s, 5m or 1h")
    return float(written[1]) * _UNITS[written[2]]


def share(option: str, text: str) -> float:
    """A share: 95%, or 0.95."""
    written = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if not written:
        raise UsageError(f"{option} {text} is not a share: write 95% or 0.95")
    return float(written[1]) / (100 if written[2] else 1)


def widths(option: str, text: str) -> tuple[int, ...]:
    """Comma-separated whole numbers; none for a model without hidden layers."""
    try:
        return tuple(int(width) for width in text.split(",") if width.strip())
    except ValueError as error:
        raise UsageError(f"{option} {text}: give whole numbers with commas between, such as 128,40") from error
