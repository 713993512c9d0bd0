"""`nandetect run`: anyone's program as it is, with everything that it compiles watched."""

from __future__ import annotations

from typing import Annotated

import typer

from nandetect import fixing
from nandetect.cli import options, run_program

SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": True}


def command(
    program: Annotated[list[str], typer.Argument(metavar="SCRIPT [ARGS]...", help="A script (with -m a module), and its arguments.")],
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module, as for `python -m`.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Report what is found, and let the program run on.")] = False,
    no_proof: options.NoProof = False,
    json: options.Json = None,
) -> None:
    """Run a program as `python` would and find the first operation that makes it non-finite.

    Every outermost compiled call is watched, and code that is not jitted. What is found goes to standard error at once and ends the program
    with exit code 1. Otherwise the exit code is the program's own. With `--json -` the program's output goes to standard error.
    """
    fixing.PROVES = not no_proof
    run_program.run(program, module, keep_going, json)
