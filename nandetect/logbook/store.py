"""The file of a run: an SQLite database in WAL mode, so that reading never holds up writing and a killed writer leaves it whole."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from nandetect.records import plain

VERSION = 1
# "nndt", by which `file` and this package know such a file.
APPLICATION = 0x6E6E6474
_TABLES = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, points INTEGER NOT NULL, width INTEGER NOT NULL,
    series TEXT NOT NULL, layers TEXT NOT NULL, steps BLOB NOT NULL, numbers BLOB NOT NULL
);
CREATE TABLE finding (place INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, severity TEXT NOT NULL, value TEXT NOT NULL);
"""
# A writer waits this long for a lock, which in WAL mode only a checkpoint holds.
_PATIENCE = 5.0


def create(path: Path, facts: Mapping[str, object]) -> Path:
    """A new file with these facts at `path`, or with a number behind its name where that is taken. It is complete as soon as it appears."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_TABLES)
            with transaction(connection):
                write_facts(connection, facts)
        # mkstemp makes the file readable for its owner alone.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(unfinished, 0o666 & ~umask)
        return _named(unfinished, path)
    finally:
        for leftover in (unfinished, f"{unfinished}-wal", f"{unfinished}-shm"):
            with contextlib.suppress(OSError):
                os.unlink(leftover)


def _named(unfinished: str, path: Path) -> Path:
    """The file under the first free name: a link fails where a name is taken, so that two runs never get the same."""
    for number in range(1, 10_000):
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            os.link(unfinished, candidate)
        except FileExistsError:
            continue
        except OSError:
            # A file system without links: an empty file takes the name first, and the real one is moved onto it.
            try:
                os.close(os.open(candidate, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os.replace(unfinished, candidate)
        return candidate
    raise FileExistsError(f"{path} and 10,000 names after it are taken")


def for_writing(path: Path) -> sqlite3.Connection:
    """A connection that writes. Its commits survive the process; a power cut may lose the last of them but not the file (NORMAL)."""
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 8388608")
    return connection


def for_reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads. A file in a directory that cannot be written has no writer, and is opened as immutable."""
    name = path.resolve().as_uri()
    connection = sqlite3.connect(f"{name}?mode=rw", timeout=_PATIENCE, isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        return sqlite3.connect(f"{name}?mode=ro&immutable=1", isolation_level=None, uri=True)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction around the `with` block: all of its statements are committed, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def write_facts(connection: sqlite3.Connection, facts: Mapping[str, object]) -> None:
    """Write facts; each replaces the fact of the same name."""
    rows = [(name, as_json(value)) for name, value in facts.items()]
    connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", rows)


def as_json(value: object) -> str:
    """The JSON of records, scalars and arrays; what JSON cannot say is written as Python prints it."""
    return json.dumps(plain(value), allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    to_list = getattr(value, "tolist", None)
    return str(value) if to_list is None else plain(to_list())


def size(path: Path) -> int:
    """Bytes on disk, with those that are still in the write-ahead log."""
    total = 0
    for part in (path, Path(f"{path}-wal")):
        with contextlib.suppress(OSError):
            total += part.stat().st_size
    return total
