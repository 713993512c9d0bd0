"""How `nandetect run` looks: each fault as soon as it is found, and one line at the end, on standard error."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.run import script

if TYPE_CHECKING:
    from nandetect.records import Report
    from nandetect.run.script import Ran

# How many kinds of what was not looked at are listed.
_SHOWN = 4


def show(report: Report) -> None:
    """Print the report of a fault."""
    from rich.console import Console

    from nandetect.render import terminal

    flush()
    if sys.stderr is not None:
        terminal.show(report, Console(stderr=True))
    flush()


def flush() -> None:
    """Let what the program wrote come first. Whether it can be written is told to the program, as ever, and not to us."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def summary(ran: Ran) -> None:
    """Print the findings that are no report, and the line at the end."""
    flush()
    for finding in ran.findings:
        # The faults have been shown, and a note is for those who ask.
        if finding.rule != "non-finite" or finding.severity == "warning":
            script.say(f"{finding.severity}: {finding.message}\n  help: {finding.help}")
    script.say(f"nandetect: {_last_line(ran)}")


def _last_line(ran: Ran) -> str:
    if ran.unwatched:
        return f"nothing was watched: watching could not begin ({ran.unwatched})"
    if not ran.saw_jax:
        return "the program did not import JAX: nothing was watched"
    left_out = ", ".join([*ran.unseen[:_SHOWN], *([f"{len(ran.unseen) - _SHOWN} more"] if len(ran.unseen) > _SHOWN else [])])
    found = "" if ran.found else "nothing non-finite; "
    if left_out:
        found = f"{'' if ran.found else 'nothing found, but '}not looked at: {left_out}; "
    calls = f"{wording.counted(ran.cost.calls, 'call')} of {wording.counted(ran.functions, 'compiled function')}"
    outside = f" and {ran.operations:,} operations outside of them" if ran.operations else ""
    return f"{found}watched {calls}{outside}, for {ran.cost.share:.1%} of the time"


def body(program: list[str], ran: Ran) -> dict[str, object]:
    """The command's own part of the document."""
    return {
        "program": program,
        "exit_code": ran.code,
        "functions": ran.functions,
        "operations": ran.operations,
        # Where this is not empty, nothing found does not mean that there is nothing.
        "not_looked_at": ["the whole program"] if ran.unwatched else ran.unseen,
        "seconds": ran.seconds,
        "cost": ran.cost,
    }
