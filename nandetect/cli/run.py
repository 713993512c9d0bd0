"""`nandetect run`: anyone's program as it is, with everything that it compiles watched."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": True}


def command(
    program: Annotated[list[str], typer.Argument(metavar="SCRIPT [ARGS]...", help="A script (with -m a module), and its arguments.")],
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module, as for `python -m`.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Report what is found, and let the program run on.")] = False,
    json: Annotated[str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON; `-` is standard output.")] = None,
) -> None:
    """Run a program as `python` would and find the first operation that makes it non-finite.

    Every outermost compiled call is watched, and code that is not jitted. What is found goes to standard error at once and ends the program
    with exit code 1. Otherwise the exit code is the program's own. With `--json -` the program's output goes to standard error.
    """
    from nandetect import script
    from nandetect.cli import run_view
    from nandetect.render import json as documents

    if json:
        documents.check(json)
    target, *args = program
    start = script.load(target, module)
    with run_view.output_aside(json == "-"):
        ran = script.run(start, [target, *args], run_view.show, keep_going)
        if not ran.is_child:
            run_view.summary(ran)
    if json and not ran.is_child:
        documents.write(documents.document("run", ran.findings, run_view.body(program, ran)), json)
    if ran.code < 0:
        # The program died of a signal: so does this process, and a shell sees what it would have seen.
        signal.signal(-ran.code, signal.SIG_DFL)
        sys.stdout.flush()
        os.kill(os.getpid(), -ran.code)
    raise typer.Exit(1 if ran.found else ran.code)
