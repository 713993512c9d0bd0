"""The catalogue of recorded runs: where they are kept, what their files are called, and how one is found again."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from nandetect.errors import UsageError
from nandetect.logbook.reader import SUFFIX, Entry, entries

# Runs, and bytes, that the default directory holds at most: the oldest runs are removed first.
_MOST = 100
_MOST_BYTES = 2**30
_NAMES_SHOWN = 3
_AN_HOUR = 3600.0


def default_directory() -> Path:
    """The directory of runs that name none of their own: below the user's state folder, as the platform has it."""
    # Imported here, since most programs never ask for the folder.
    from platformdirs import user_state_path

    return user_state_path("nandetect", appauthor=False) / "runs"


def name_of(began: float, about: Mapping[str, object]) -> str:
    """`20261125-181530-mlp.sqlite`, in local time."""
    model = re.sub(r"[^A-Za-z0-9_]+", "_", Path(str(about.get("model", "run"))).stem)[:40].strip("_") or "run"
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(began))}-{model}{SUFFIX}"


def find(text: str) -> Path:
    """The file of the run that `text` names: a file, a directory (its newest), `last`, or the name of a kept run or the start of it."""
    directory = default_directory()
    if text == "last":
        return _newest(directory, "`nandetect train` keeps the next one there")
    path = Path(text)
    if path.is_dir():
        return _newest(path, "give a run's file or the directory that it was recorded in")
    if path.is_file():
        return path
    names = [entry.name for entry in entries(directory)]
    matches = [name for name in names if name == text] or [name for name in names if text and name.startswith(text)]
    if len(matches) == 1:
        return directory / f"{matches[0]}{SUFFIX}"
    if matches:
        raise UsageError(f"{text} is the start of {len(matches)} runs: {_few(matches)}; give more of the name")
    known = f"the newest of {len(names)} are {_few(names)}" if len(names) > 1 else f"there is only {names[0]}" if names else "none is kept"
    raise UsageError(f"there is no run {text}: {known}; `nandetect show` lists them")


def prune(directory: Path, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
    """Remove the oldest runs, but none that is running, until both bounds hold; and the unfinished files of killed processes."""
    size = 0
    for number, entry in enumerate(entries(directory), start=1):
        size += entry.size
        if (number > most or size > most_bytes) and entry.state != "running":
            _remove(entry)
    for leftover in directory.glob(".*.part*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _AN_HOUR:
                leftover.unlink()


def _remove(entry: Entry) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            os.unlink(f"{entry.path}{suffix}")


def _newest(directory: Path, advice: str) -> Path:
    runs = entries(directory)
    if not runs:
        raise UsageError(f"no run is kept in {directory}; {advice}")
    return runs[0].path


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN]) + (" ..." if len(names) > _NAMES_SHOWN else "")
