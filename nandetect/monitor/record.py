"""The record of a monitored run on disk: its points, the findings while it went, and at exit those of the whole run."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from pathlib import Path

from nandetect.history import History
from nandetect.logbook import Logbook
from nandetect.monitor.judging import Judging
from nandetect.monitor.rules import judge
from nandetect.records import Finding


class RecordSink:
    """A sink that records the parts of a run's history.

    `read` gives the run as far as it was read; `history` reads what is left and gives the whole, which is judged at exit.
    """

    def __init__(self, directory: str | Path, read: Callable[[], History], history: Callable[[], History]):
        self._directory, self._history = directory, history
        self._book: Logbook | None = None
        self._judging = Judging(read, self._note)

    def __call__(self, part: History) -> None:
        if self._book is None:
            self._book = Logbook(self._directory, about={"command": "Monitor", "model": "monitor"})
            # `atexit` runs last what was registered first: the findings are settled before the Logbook closes itself.
            atexit.register(self._settle)
        self._book.append(part)
        self._judging.judge_if_due()

    def _note(self, findings: list[Finding]) -> None:
        if self._book is not None:
            self._book.note(findings)

    def _settle(self) -> None:
        whole = self._history()
        if self._book is not None:
            self._book.settle(judge(whole))
