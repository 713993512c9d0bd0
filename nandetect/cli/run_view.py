"""How `nandetect run` looks: each fault as soon as it is found, and one line at the end, on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nandetect import wording

if TYPE_CHECKING:
    from nandetect.records import Report
    from nandetect.run.script import Ran

# How many kinds of what was not looked at are listed.
_SHOWN = 4


def show(report: Report) -> None:
    """Print the report of a fault."""
    from rich.console import Console

    from nandetect.render import terminal

    sys.stdout.flush()
    terminal.show(report, Console(stderr=True))
    sys.stderr.flush()


def summary(ran: Ran) -> None:
    """Print the findings that are no report, and the line at the end."""
    sys.stdout.flush()
    for finding in ran.findings:
        if finding.rule != "non-finite":
            sys.stderr.write(f"{finding.severity}: {finding.message}\n  help: {finding.help}\n")
    if not ran.saw_jax:
        sys.stderr.write("nandetect: the program did not import JAX: nothing was watched\n")
        return
    if ran.unwatched:
        sys.stderr.write(f"nandetect: nothing was watched: watching could not begin ({ran.unwatched})\n")
        return
    left_out = ", ".join([*ran.unseen[:_SHOWN], *([f"{len(ran.unseen) - _SHOWN} more"] if len(ran.unseen) > _SHOWN else [])])
    found = "" if ran.found else "nothing non-finite; "
    if left_out:
        found = f"{'' if ran.found else 'nothing found, but '}not looked at: {left_out}; "
    calls = f"{wording.counted(ran.cost.calls, 'call')} of {wording.counted(ran.functions, 'compiled function')}"
    outside = f" and {ran.operations:,} operations outside of them" if ran.operations else ""
    sys.stderr.write(f"nandetect: {found}watched {calls}{outside}, for {ran.cost.share:.1%} of the time\n")
    sys.stderr.flush()


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


@contextmanager
def output_aside(aside: bool) -> Iterator[None]:
    """Where `aside` says so, what is written to standard output in the context goes to standard error, also by child processes."""
    if not aside:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
