"""The writer of a run's record: points and findings are taken at once, and a thread of its own writes them beside the training."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from nandetect.history import History, Leaf, join
from nandetect.logbook import store
from nandetect.logbook.catalogue import name_of
from nandetect.logbook.chunks import BUDGET, Chunks
from nandetect.logbook.process import this_process
from nandetect.logbook.reader import SUFFIX
from nandetect.logbook.thinning import thin
from nandetect.records import Finding

# Seconds between two writes, and after one that failed. A killed run lacks what came since its last write.
_SECONDS = 0.3
_SECONDS_AFTER_FAILURE = 5.0
# Bytes that may wait for a slow or full disk; where there are more, half of the points are dropped.
_MOST_BYTES = 16 * 2**20
# Findings that are kept; of more the oldest are dropped, errors last.
_MOST_FINDINGS = 1000
# The series that the record adds: the seconds from the start of the run to when a point was given.
ELAPSED = "elapsed_seconds"


class Logbook:
    """The record of one run, open for writing. No failure of the disk stops the run: `warn` is called once, with one line.

    `where` is the file itself where it ends in `.sqlite` (with a number behind the name where that is taken), else a directory, made where
    missing, in which the run gets a name of date, time and `about["model"]`. `leaves` left out are those of the first chunk that has some.
    `about` is whatever JSON can hold of what was asked. A record larger than `budget` bytes is thinned. `path` is the file, or None where
    none could be made.
    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        leaves: tuple[Leaf, ...] = (),
        about: Mapping[str, object] | None = None,
        *,
        warn: Callable[[str], None] | None = None,
        budget: int = BUDGET,
    ):
        self._warn = warn or (lambda message: warnings.warn(message, RuntimeWarning, stacklevel=2))
        self._leaves, self._about = leaves, dict(about or {})
        self._began = time.time()
        self._lock, self._writing, self._wake = threading.Lock(), threading.Lock(), threading.Event()
        self._waiting: list[History] = []
        self._findings: list[Finding] = []
        self._facts: dict[str, object] = {}
        self._closing = self._failed = self._settled = False
        self._owner = os.getpid()
        self.path: Path | None = None
        self._connection: sqlite3.Connection | None = None
        file = Path(where) if Path(where).suffix == SUFFIX else Path(where) / name_of(self._began, self._about)
        facts = {"leaves": _plain_leaves(leaves), "began": self._began, "process": this_process(), "about": self._about}
        try:
            self.path = store.create(file, facts)
            self._connection = store.for_writing(self.path)
        except (OSError, sqlite3.Error) as error:
            self._fail(f"the run is not recorded: {file.parent} cannot be written ({_short(error)})")
            return
        self._chunks = Chunks(budget)
        self._thread = threading.Thread(target=self._write_on, name="nandetect-logbook", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def append(self, chunk: History) -> None:
        """Take newly read points, later than all before; returns at once, and may be called from any thread."""
        if not self._open() or not len(chunk):
            return
        elapsed = np.full(len(chunk), time.time() - self._began, np.float32)
        with self._lock:
            if chunk.leaves and not self._leaves:
                self._leaves = chunk.leaves
                self._facts["leaves"] = _plain_leaves(chunk.leaves)
            wide = {name: array.shape for name, array in chunk.layers.items() if array.shape != (len(chunk), len(self._leaves))}
            if chunk.leaves and wide:
                raise ValueError(
                    f"the record has {len(self._leaves)} leaves, a chunk of {len(chunk)} points has layers of the shapes {wide}"
                )
            self._waiting.append(replace(chunk, series={**chunk.series, ELAPSED: elapsed}))
            self._waiting = self._bounded(self._waiting)

    def note(self, findings: Iterable[Finding]) -> None:
        """Take findings; one of the same rule, layer and step as an earlier one replaces it. The record has 1,000 at most."""
        if self._open():
            with self._lock:
                self._findings.extend(findings)

    def settle(self, findings: Iterable[Finding]) -> None:
        """Take the findings of the whole run, which replace all that were noted while it went."""
        if self._open():
            with self._lock:
                self._findings, self._settled = list(findings), True

    def flush(self) -> None:
        """Write at once what waits to be written."""
        if self._open():
            self._write()

    def close(self, state: Literal["finished", "interrupted"] = "finished", **about: object) -> None:
        """Write what is left and how the run ended; `about` joins what was given at the start. Closing again does nothing."""
        if not self._open():
            return
        assert self._connection is not None
        self._closing = True
        self._wake.set()
        self._thread.join()
        atexit.unregister(self._at_exit)
        self._facts |= {"about": {**self._about, **about}, "state": state, "ended": time.time()}
        self._write()
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("finished" if kind is None else "interrupted")

    def _open(self) -> bool:
        """Whether the record takes anything: it is not closed, and this is the process that opened it, not a fork."""
        return self._connection is not None and not self._closing and os.getpid() == self._owner

    def _at_exit(self) -> None:
        # Python keeps in `sys.last_value` the exception whose traceback it printed.
        self.close("interrupted" if getattr(sys, "last_value", None) is not None else "finished")

    def _write_on(self) -> None:
        pause = _SECONDS
        while not self._wake.wait(pause):
            pause = _SECONDS if self._write() else _SECONDS_AFTER_FAILURE

    def _write(self) -> bool:
        with self._writing:
            return self._write_alone()

    def _write_alone(self) -> bool:
        """Write what waits, in one transaction; after a failure it waits for the next one. The lock `_writing` is held."""
        with self._lock:
            waiting, findings, facts, settled = self._waiting, self._findings, self._facts, self._settled
            self._waiting, self._findings, self._facts, self._settled = [], [], {}, False
            chunks = self._chunks.copy(self._leaves)
        if not (waiting or findings or facts or settled):
            return True
        assert self._connection is not None
        try:
            with store.transaction(self._connection):
                chunks.add(self._connection, waiting)
                if settled:
                    self._connection.execute("DELETE FROM finding")
                _write_findings(self._connection, findings)
                store.write_facts(self._connection, facts)
        except (OSError, sqlite3.Error) as error:
            with self._lock:
                self._waiting = self._bounded([*waiting, *self._waiting])
                # Findings that were settled meanwhile replace all before them.
                self._findings = self._findings if self._settled else [*findings, *self._findings]
                self._facts, self._settled = {**facts, **self._facts}, self._settled or settled
            self._fail(f"the run's record is behind: {self.path} could not be written ({_short(error)}); trying again")
            return False
        self._chunks = chunks
        return True

    def _bounded(self, waiting: list[History]) -> list[History]:
        if sum(len(piece) * piece.point_bytes for piece in waiting) <= _MOST_BYTES:
            return waiting
        return [thin(join(waiting, self._leaves), sum(map(len, waiting)) // 2)]

    def _fail(self, message: str) -> None:
        if not self._failed:
            self._failed = True
            self._warn(message)


def _plain_leaves(leaves: tuple[Leaf, ...]) -> list[tuple[str, tuple[int, ...], str]]:
    return [(leaf.path, leaf.shape, leaf.dtype) for leaf in leaves]


def _write_findings(connection: sqlite3.Connection, findings: Sequence[Finding]) -> None:
    for finding in findings:
        name = json.dumps([finding.rule, finding.layer, finding.step])
        # A finding that comes again keeps its place, which `INSERT OR REPLACE` would change.
        connection.execute(
            "INSERT INTO finding (name, severity, value) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET severity = excluded.severity, value = excluded.value",
            (name, finding.severity, store.as_json(finding)),
        )
    if findings:
        (count,) = connection.execute("SELECT count(*) FROM finding").fetchone()
        connection.execute(
            "DELETE FROM finding WHERE place IN (SELECT place FROM finding ORDER BY severity = 'error', place LIMIT ?)",
            (max(count - _MOST_FINDINGS, 0),),
        )


def _short(error: OSError | sqlite3.Error) -> str:
    """The error's reason without its path, which the message names by itself."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
