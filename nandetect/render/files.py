"""Result files: refused before the work where they could not be written, and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from nandetect.errors import UsageError


def check(path: str | os.PathLike[str], option: str) -> None:
    """Raise `UsageError` unless `write` could write there. `option` is what the path was given with."""
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{option} {path} is a directory; give the name of a file in it")
    if not target.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no directory {target.parent}; create it or give another path")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: the directory {target.parent} cannot be written; give another path")


def write(content: bytes, path: str | os.PathLike[str], option: str) -> None:
    """Write the content to a file, whole or not at all."""
    check(path, option)
    target = Path(path)
    try:
        if target.exists() and not target.is_file():  # a pipe or a device is written into, not replaced
            target.write_bytes(content)
        else:
            _replace(target, content)
    except OSError as error:
        raise UsageError(f"{option} {path} could not be written: {error.strerror}") from error


def _replace(target: Path, content: bytes) -> None:
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes the file readable for its owner alone; a result is for whoever may read the directory.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
