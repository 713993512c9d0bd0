"""What the history of a run says of its health."""

from __future__ import annotations

from nandetect.history import History
from nandetect.records import Finding


def judge(history: History) -> list[Finding]:
    """The findings of a run so far, the first step's first."""
    del history
    return []
