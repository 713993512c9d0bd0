"""The reader of a run's record: one short transaction sees the run as it was at one moment, also while it is written."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from nandetect.errors import UsageError
from nandetect.history import History, Leaf
from nandetect.logbook import store
from nandetect.logbook.chunks import all_rows
from nandetect.logbook.process import Process, alive
from nandetect.logbook.recall import recall
from nandetect.records import Finding

# "interrupted": by a user, an exception, or a kill. "unknown": without a written end, and of a process that cannot be looked for from here.
State = Literal["running", "finished", "interrupted", "unknown"]
SUFFIX = ".sqlite"
# States of a run whose end is not written, by whether its process lives.
_STATES: dict[bool | None, State] = {True: "running", False: "interrupted", None: "unknown"}


class Facts(TypedDict):
    """The facts of a run's file by name. `state` and `ended` come with its end; `about` is whatever JSON can hold."""

    leaves: list[tuple[str, list[int], str]]
    process: Process
    began: float
    about: Mapping[str, Any]
    state: NotRequired[State]
    ended: NotRequired[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A run in short. `steps` are those that were seen of it, `began` is in seconds since 1970, `size` in bytes on disk."""

    name: str
    path: Path
    state: State
    began: float
    ended: float | None
    steps: int
    errors: int
    size: int
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run as its record has it: its entry, the points that are kept, and its findings."""

    entry: Entry
    history: History
    findings: tuple[Finding, ...]

    @property
    def about(self) -> Mapping[str, Any]:
        return self.entry.about

    @property
    def state(self) -> State:
        return self.entry.state


def read(path: Path) -> RecordedRun:
    """The run in that file. Raises `UsageError` where it holds none."""
    with _opened(path) as connection:
        facts = _facts(connection)
        leaves = tuple(Leaf(path=name, shape=tuple(shape), dtype=dtype) for name, shape, dtype in facts["leaves"])
        return RecordedRun(entry=_entry(path, connection, facts), history=all_rows(connection, leaves), findings=_findings(connection))


def entries(directory: Path) -> list[Entry]:
    """The runs in a directory, the newest first; a file that is not a run's record is passed over."""
    runs = []
    for path in directory.glob(f"*{SUFFIX}"):
        # Where bytes of a record have changed, what they are read as may raise anything.
        with contextlib.suppress(Exception), _opened(path) as connection:
            runs.append(_entry(path, connection, _facts(connection)))
    return sorted(runs, key=lambda entry: (entry.began, entry.name), reverse=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        with contextlib.closing(store.for_reading(path)) as connection:
            connection.execute("BEGIN")
            (application,), (version,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
            if application != store.APPLICATION:
                raise UsageError(f"{path} is not the record of a run; `nandetect show` lists those that are kept")
            if version > store.VERSION:
                raise UsageError(f"{path} was written by a newer nandetect; install that to read it")
            yield connection
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} cannot be read as the record of a run: {error}") from error


def _facts(connection: sqlite3.Connection) -> Facts:
    return cast(Facts, {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM fact")})


def _entry(path: Path, connection: sqlite3.Connection, facts: Facts) -> Entry:
    (last,) = connection.execute("SELECT max(last) FROM chunk").fetchone()
    (errors,) = connection.execute("SELECT count(*) FROM finding WHERE severity = 'error'").fetchone()
    return Entry(
        name=path.stem,
        path=path,
        state=facts.get("state") or _STATES[alive(facts["process"])],
        began=facts["began"],
        ended=facts.get("ended"),
        steps=0 if last is None else last + 1,
        errors=errors,
        size=store.size(path),
        about=facts["about"],
    )


def _findings(connection: sqlite3.Connection) -> tuple[Finding, ...]:
    rows = connection.execute("SELECT value FROM finding ORDER BY place")
    return tuple(recall(Finding, json.loads(value)) for (value,) in rows)
