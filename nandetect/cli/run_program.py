"""What `nandetect run` does. Plain invocations are parsed here, without typer: importing it would cost each program that is run a tenth of
a second."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from nandetect.cli import run_view
from nandetect.cli.output import JsonOutput
from nandetect.run import script

Asked = tuple[list[str], bool, bool, str | None]


def understood(arguments: Sequence[str]) -> Asked | None:
    """The arguments of a plain `run`; None where typer has to see them: another command, `--help`, an option that is not known."""
    if arguments[:1] != ["run"]:
        return None
    left = list(arguments[1:])
    module, keep_going, json = False, False, None
    while left and left[0].startswith("-"):
        option = left.pop(0)
        if option == "-m":
            module = True
        elif option == "--keep-going":
            keep_going = True
        elif option == "--json" and left:
            json = left.pop(0)
        else:
            return None
    return (left, module, keep_going, json) if left else None


def run(program: list[str], module: bool, keep_going: bool, json: str | None) -> NoReturn:
    """Run a program and report what is found in it. Exit 1 where something is, else as the program would have."""
    document = JsonOutput(json)
    target, *args = program
    start = script.load(target, module)
    ran = script.run(start, [target, *args], run_view.show, keep_going)
    if not ran.is_child:
        run_view.summary(ran)
    if not ran.is_child:
        document.write("run", ran.findings, lambda: run_view.body(program, ran), is_started=ran.functions + ran.operations > 0)
    if ran.code < 0:
        # A program that died of a signal: this process dies of it too, so that a shell sees the same.
        signal.signal(-ran.code, signal.SIG_DFL)
        run_view.flush()
        os.kill(os.getpid(), -ran.code)
    sys.exit(1 if ran.found else ran.code)
