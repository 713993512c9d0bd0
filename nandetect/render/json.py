"""A command's result as one JSON document; `schema.json` beside this file describes it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import TextIO

from nandetect.records import Finding, plain
from nandetect.render import files

SCHEMA = 1
_STDOUT = "-"


def document(command: str, findings: Iterable[Finding], body: Mapping[str, object], is_started: bool = True) -> dict[str, object]:
    """The document of a command: `body` stands under the command's name. `is_started` as `environment` has it."""
    from nandetect import __version__

    return {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "environment": environment(is_started),
        "findings": [finding(told) for told in findings],
        command.replace("-", "_"): plain(body),
    }


def finding(finding: Finding) -> dict[str, object]:
    """A finding with its report's origin as `event`; what does not apply is left out."""
    told = {"event": finding.report.origin if finding.report else None, **{name: getattr(finding, name) for name in Finding.__slots__}}
    return {name: plain(value) for name, value in told.items() if value is not None and value != ""}


def environment(is_started: bool = True) -> dict[str, object]:
    """Versions, and the backend and devices where JAX is in use already: asking would start it, as it does unless it `is_started`."""
    versions: dict[str, object] = {"python": platform.python_version(), **{name: installed(name) for name in ("jax", "jaxlib", "numpy")}}
    jax = sys.modules.get("jax")
    nothing = {**versions, "backend": None, "devices": []}
    if jax is None or not is_started:
        return nothing
    try:
        devices = [{"id": device.id, "platform": device.platform, "kind": device.device_kind} for device in jax.devices()]
        return {**versions, "backend": jax.default_backend(), "devices": devices}
    # What was asked for is not there, or broke: the document says everything else.
    except Exception:
        return nothing


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check(path: str | os.PathLike[str]) -> None:
    """Raise `UsageError` unless `write` could write there: asked before a long run, so that its result is not lost."""
    if os.fspath(path) != _STDOUT:
        files.check(path, "--json")


def write(document: Mapping[str, object], path: str | os.PathLike[str], stdout: TextIO | None = None) -> None:
    """Write the document to a file, whole or not at all, or for `-` to standard output: the stream that is, if none is given."""
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False, default=_scalar) + "\n"
    if os.fspath(path) == _STDOUT:
        stream = stdout or sys.stdout
        stream.write(text)
        stream.flush()
        return
    files.write(text.encode(), path, "--json")


def _scalar(value: object) -> object:
    """A numpy or JAX scalar or array as plain data."""
    as_list = getattr(value, "tolist", None)
    if as_list is not None:
        return plain(as_list())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
