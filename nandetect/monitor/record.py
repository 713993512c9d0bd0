"""The record of a monitored run: what was read of it, and what it showed while it went and shows as a whole."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from pathlib import Path

from nandetect.history import History
from nandetect.logbook import Logbook
from nandetect.monitor.judging import Judging
from nandetect.monitor.rules import judge


class Kept:
    """A sink for the parts of a run's history; `history` reads what is left and gives the whole."""

    def __init__(self, directory: str | Path, read: Callable[[], History], history: Callable[[], History]):
        self._directory, self._history = directory, history
        self._book: Logbook | None = None
        self._judging = Judging(read, self._note)

    def __call__(self, part: History) -> None:
        if self._book is None:
            self._book = Logbook(self._directory, about={"command": "Monitor", "model": "monitor"})
            # After it, so that at exit it comes before it.
            atexit.register(self._settle)
        self._book.append(part)
        self._judging.again()

    def _note(self, findings: list) -> None:
        if self._book is not None:
            self._book.note(findings)

    def _settle(self) -> None:
        whole = self._history()
        if self._book is not None:
            self._book.settle(judge(whole))
