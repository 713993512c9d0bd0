"""Which process writes a run, so that a reader can tell a run that goes on from one that was killed."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TypedDict


class Process(TypedDict):
    """A process of some host, told apart from a later one of the same number by when it began; None where that is not known."""

    host: str
    pid: int
    began: str | None


def this_process() -> Process:
    """The process that runs this code."""
    return {"host": platform.node(), "pid": os.getpid(), "began": _began(os.getpid())}


def alive(process: Process) -> bool | None:
    """Whether the process still runs; None where that cannot be known from here."""
    if process["host"] != platform.node() or os.name == "nt":
        return None
    try:
        # Signal 0 only asks whether the process exists.
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return process["began"] == _began(process["pid"])


def _began(pid: int) -> str | None:
    """When Linux started the process, in its own unit; `dead` of one that has ended and was not waited for; None on other systems."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return "dead" if fields[0] in "ZX" else f"{boot} {fields[19]}"
