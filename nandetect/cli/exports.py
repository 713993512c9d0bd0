"""A recorded run in the formats of other programs, each file written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nandetect.errors import UsageError
from nandetect.render import files

if TYPE_CHECKING:
    from nandetect.logbook import RecordedRun


def check(tensorboard: str | None = None, csv: str | None = None, parquet: str | None = None) -> None:
    """Raise `UsageError` unless `write` could write there."""
    from nandetect.logbook import events, tables

    for path, option in ((csv, "--csv"), (parquet, "--parquet")):
        if path:
            files.check(path, option)
    if parquet:
        tables.require_parquet()
    if tensorboard:
        events.require_tensorboard()
        try:
            Path(tensorboard).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--tensorboard {tensorboard} cannot be made a directory: {error.strerror}") from error


def write(run: RecordedRun, tensorboard: str | None = None, csv: str | None = None, parquet: str | None = None) -> None:
    """Write the run. TensorBoard takes each directory below the one that it is given for a run: this one gets its own."""
    from nandetect.logbook import events, tables

    if csv:
        files.write(tables.as_csv(run.history), csv, "--csv")
    if parquet:
        files.write(tables.as_parquet(run.history), parquet, "--parquet")
    if tensorboard:
        directory = Path(tensorboard) / run.entry.name
        check(str(directory))
        files.write(events.as_events(run), directory / events.file_name(run), "--tensorboard")
