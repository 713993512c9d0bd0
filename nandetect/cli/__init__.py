"""The command line: one file a command, each of which parses, calls one library function, renders and sets the exit code."""

from __future__ import annotations

import importlib
import os
import sys

import typer

from nandetect.errors import UsageError

app = typer.Typer(
    name="nandetect",
    help="The numerical debugger for JAX: which operation first made the NaN, on which line of yours, and why.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = ("train", "diff-loss", "race", "run", "audit-init", "inspect", "show", "doctor")

for _name in COMMANDS:
    _module = importlib.import_module(f"nandetect.cli.{_name.replace('-', '_')}")
    app.command(_name, context_settings=getattr(_module, "SETTINGS", None))(_module.command)


def _version(asked: bool) -> None:
    if asked:
        from nandetect import __version__

        typer.echo(f"nandetect {__version__}")
        raise typer.Exit()


@app.callback()
def _options(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version.")) -> None:
    """The numerical debugger for JAX: which operation first made the NaN, on which line of yours, and why."""


def main() -> None:
    """Run a command. Exit 0: nothing found; 1: a fault was reported; 2: the command or its input could not be understood."""
    try:
        app()
    except UsageError as error:
        sys.stderr.write(f"nandetect: {error}\n")
        sys.exit(2)
    except BrokenPipeError:
        # The reader went away (`| head`): point stdout at nothing, so that the interpreter's own flush at exit does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
