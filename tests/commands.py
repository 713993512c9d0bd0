"""Commands run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = (sys.executable, "-c", "from nandetect.cli import main; main()")


def nandetect_command(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command with neither a terminal nor anything to read."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )


def refused(*arguments: object, **options) -> str:
    """The one line on standard error with which a command that exits 2 refuses."""
    done = nandetect_command(*arguments, **options)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
