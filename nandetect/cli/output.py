"""Where a command's output goes: its text to a standard stream, and with `--json` its document. `run` uses it, and does without typer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from nandetect.annotations import Json
from nandetect.errors import UsageError
from nandetect.records import Finding, plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Lost(Exception):
    """What a command writes cannot be written; the cause is the `OSError` that said so."""


class JsonOutput:
    """Where the document of a command goes: to a path, for `-` to standard output, and without a path nowhere.

    For `-`, whatever else is written to standard output from now on goes to standard error: also by the user's own files that are imported,
    by child processes, and at the very end. Raises `UsageError` where it could not be written there: before the work, so that the result is
    not lost.
    """

    def __init__(self, path: str | None):
        self._path = path
        self._stream: TextIO | None = None
        if path:
            from nandetect.render import json

            json.check(path)
        if self.takes_stdout:
            self._stream = _stdout_alone()

    @property
    def takes_stdout(self) -> bool:
        """Whether standard output takes the document, and so nothing else."""
        return self._path == "-"

    def write(self, command: str, findings: Iterable[Finding], body: Callable[[], Mapping[str, object]], is_started: bool = True) -> None:
        """Write the document of a command, if one was asked for: only then is its own part made.

        The devices stand in it unless JAX's backend is known not to be started: asking for them starts it.
        """
        if self._path:
            from nandetect.render import json

            try:
                json.write(json.document(command, findings, body(), is_started), self._path, self._stream)
            except OSError:
                if self._stream is not None:
                    point_at_nothing(self._stream)
                raise


def point_at_nothing(stream: TextIO) -> None:
    """What a stream could not write is lost, and the interpreter's own flush at its end does not complain of it once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stdout_alone() -> TextIO:
    """A stream to standard output, where nobody else writes from now on."""
    stream = sys.stdout
    if stream is None:
        raise UsageError("--json -: standard output is closed")
    stream.flush()
    sys.stdout = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if not _is_on(stream, 1) or not _is_on(sys.stderr, 2):
        return stream
    # A copy of it, which no child process inherits; what is written to the one that everybody knows goes to standard error.
    kept = os.dup(1)
    os.dup2(2, 1)
    return open(kept, "w", encoding=stream.encoding, errors=stream.errors)


def _is_on(stream: TextIO | None, descriptor: int) -> bool:
    try:
        return stream is not None and stream.fileno() == descriptor
    # A stream of the program's own has no descriptor.
    except (OSError, AttributeError):
        return False


def body(result: DataclassInstance) -> dict[str, Json]:
    """A command's result as its own part of the document: the findings stand beside it."""
    parts = plain(result)
    del parts["findings"]
    return parts


def write_lines(lines: Iterable[str], to_stderr: bool = False) -> None:
    """Print lines to standard output or standard error; in UTF-8 where the stream's own encoding is ASCII."""
    import typer

    typer.echo("".join(f"{line}\n" for line in lines), nl=False, err=to_stderr)
