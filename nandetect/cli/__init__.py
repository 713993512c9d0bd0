"""The command line: one file a command, each of which parses, calls one library function, renders and sets the exit code."""

from __future__ import annotations

import os
import sys

from nandetect.errors import UsageError


def main() -> None:
    """Run a command. Exit 0: nothing found; 1: a fault was reported; 2: the command or its input could not be understood."""
    from nandetect.cli import run_program

    plain = run_program.understood(sys.argv[1:])
    try:
        if plain is not None:
            run_program.run(*plain)
        from nandetect.cli.commands import app

        app()
    except UsageError as error:
        sys.stderr.write(f"nandetect: {error}\n")
        sys.exit(2)
    except BrokenPipeError:
        # The reader went away (`| head`): point stdout at nothing, so that the interpreter's own flush at exit does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
