"""The command line: one file a command, each of which parses, calls one library function, renders and sets the exit code."""

from __future__ import annotations

import contextlib
import os
import sys

from nandetect.errors import UsageError


def main() -> None:
    """Run a command. Exit 0: nothing found; 1: a fault was reported; 2: the command or its input could not be understood, or its output
    could not be written."""
    from nandetect.cli import run_program

    plain = run_program.understood(sys.argv[1:])
    try:
        if plain is not None:
            run_program.run(*plain)
        code = _command()
    except UsageError as error:
        code = 2
        # Where standard error is closed as well, nobody is told.
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.write(f"nandetect: {error}\n")
            sys.stderr.flush()
    sys.exit(code)


def _command() -> int:
    """Run any other command than a plain `run`, and give its exit code."""
    if sys.stdout is None:
        raise UsageError("standard output is closed")
    if sys.stderr is None:
        # What would be said there is said to nobody; what is found stands on standard output.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    from nandetect.cli.commands import app
    from nandetect.cli.output import Lost, point_at_nothing

    try:
        code = _exit_code(app)
        sys.stdout.flush()
        return code
    except (Lost, OSError) as error:
        cause = error.__cause__ if isinstance(error, Lost) else error
        with contextlib.suppress(OSError, ValueError):
            # Not where standard error stands in for it.
            if sys.stdout.fileno() == 1:
                point_at_nothing(sys.stdout)
        if isinstance(cause, BrokenPipeError):
            return 2  # the reader went away (`| head`), and knows
        what = getattr(cause, "filename", None) or "standard output"
        raise UsageError(f"{what} could not be written: {getattr(cause, 'strerror', None) or cause}") from error


def _exit_code(app: object) -> int:
    assert callable(app)
    try:
        app()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0
