"""The record that `nandetect train` keeps of its run."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nandetect.errors import UsageError
from nandetect.records import plain
from nandetect.train.observers import Observer

if TYPE_CHECKING:
    from nandetect.history import History
    from nandetect.logbook import Logbook
    from nandetect.records import Finding
    from nandetect.train.settings import TrainResult, TrainSettings


class Record(Observer):
    """The record of one run, begun with the first event: a run that is refused before it trains leaves none."""

    def __init__(self, directory: Path | None, settings: TrainSettings):
        self._directory, self._settings = directory, settings
        self._book: Logbook | None = None

    @property
    def path(self) -> Path | None:
        """The file of the record; None before it is begun."""
        return self._book.path if self._book else None

    def begun(self, findings: Sequence[Finding]) -> None:
        self.found(findings)

    def chunk(self, history: History) -> None:
        if book := self._begun():
            book.append(history)

    def found(self, findings: Sequence[Finding]) -> None:
        if book := self._begun():
            book.note(findings)

    def finish(self, result: TrainResult, summary: Sequence[str]) -> None:
        """Write the result of the run, and the summary as it was printed."""
        if book := self._begun():
            book.settle(result.findings)
            state = "interrupted" if result.stopped == "interrupted" else "finished"
            book.close(state, result=plain(dataclasses.replace(result, findings=())), summary=list(summary))

    def _begun(self) -> Logbook | None:
        """The open record, begun where there is none yet; None where none is kept."""
        from nandetect.logbook import Logbook

        if self._book is None and self._directory is not None:
            about = {"command": "train", "model": self._settings.model, "settings": dataclasses.asdict(self._settings)}
            self._book = Logbook(self._directory, about=about, warn=_warn)
        return self._book

    def abandon(self) -> None:
        """Close the record as interrupted, where an exception ended the run; a finished one stays as it is."""
        if self._book is not None:
            self._book.close("interrupted")


def _warn(message: str) -> None:
    sys.stderr.write(f"nandetect: {message}\n")


@contextmanager
def recording(settings: TrainSettings, directory: str | None, wanted: bool, needed: bool) -> Iterator[Record]:
    """The record of a run: in `directory`, else where runs are kept; in a temporary directory where it is needed and not wanted."""
    from nandetect import logbook

    if not wanted and directory is not None:
        raise UsageError("--record and --no-record say opposite things: give one of them")
    with tempfile.TemporaryDirectory() as passing:
        kept = logbook.default_directory() if wanted and directory is None else None
        where = kept or (Path(directory) if directory is not None else Path(passing) if needed else None)
        record = Record(where, settings)
        try:
            yield record
        finally:
            record.abandon()
            if kept:
                logbook.prune(kept)
