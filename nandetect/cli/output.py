"""Where a command's output goes: its text to a standard stream, and with `--json` its document. `run` uses it, and does without typer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from nandetect.annotations import Json
from nandetect.records import Finding, plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class JsonOutput:
    """Where the document of a command goes: to a path, for `-` to standard output, and without a path nowhere.

    Raises `UsageError` where it could not be written there: before the work, so that the result is not lost.
    """

    def __init__(self, path: str | None):
        self._path = path
        if path:
            from nandetect.render import json

            json.check(path)

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

            json.write(json.document(command, findings, body(), is_started), self._path)


def body(result: DataclassInstance) -> dict[str, Json]:
    """A command's result as its own part of the document: the findings stand beside it."""
    parts = plain(result)
    del parts["findings"]
    return parts


def write_lines(lines: Iterable[str], to_stderr: bool = False) -> None:
    """Print lines to standard output or standard error; in UTF-8 where the stream's own encoding is ASCII."""
    import typer

    typer.echo("".join(f"{line}\n" for line in lines), nl=False, err=to_stderr)
