"""What `nandetect run` does, and its plain invocations understood without typer: importing that takes a tenth of a second, which each
program that is run would pay."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from nandetect.cli import run_view
from nandetect.run import script

Asked = tuple[list[str], bool, bool, str | None]


def understood(arguments: Sequence[str]) -> Asked | None:
    """The arguments of `run`; None where it is another command, or one to be helped or corrected: that is typer's."""
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
    """Run a program, tell what is found in it, and exit as it would have, or with 1."""
    if json:
        from nandetect.render import json as documents

        documents.check(json)
    target, *args = program
    start = script.load(target, module)
    with run_view.output_aside(json == "-"):
        ran = script.run(start, [target, *args], run_view.show, keep_going)
        if not ran.is_child:
            run_view.summary(ran)
    if json and not ran.is_child:
        from nandetect.render import json as documents

        documents.write(documents.document("run", ran.findings, run_view.body(program, ran)), json)
    if ran.code < 0:
        # The program died of a signal: so does this process, and a shell sees what it would have seen.
        signal.signal(-ran.code, signal.SIG_DFL)
        sys.stdout.flush()
        os.kill(os.getpid(), -ran.code)
    sys.exit(1 if ran.found else ran.code)
