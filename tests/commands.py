"""Commands as the tests run them: in processes of their own, or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nandetect import cli

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


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a command that is run in this process."""
    monkeypatch.setattr("sys.argv", ["nandetect", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    code = left.value.code or 0
    assert isinstance(code, int)
    return code
