"""All commands, as typer knows them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import typer

from nandetect.cli.output import Lost

app = typer.Typer(
    name="nandetect",
    help="The numerical debugger for JAX: which operation first made the NaN, on which line of yours, and why.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = ("train", "diff-loss", "race", "run", "audit-init", "inspect", "explain", "show", "doctor")


def _writing(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose own `OSError` gets past typer, which would end it by itself where a pipe is closed, with the code of a fault."""

    @functools.wraps(command)
    def writing(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except OSError as error:
            raise Lost from error

    return writing


for _name in COMMANDS:
    _module = importlib.import_module(f"nandetect.cli.{_name.replace('-', '_')}")
    app.command(_name, context_settings=getattr(_module, "SETTINGS", None))(_writing(_module.command))


def _version(asked: bool) -> None:
    if asked:
        from nandetect import __version__

        typer.echo(f"nandetect {__version__}")
        raise typer.Exit()


@app.callback()
def _options(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version.")) -> None:
    """The numerical debugger for JAX: which operation first made the NaN, on which line of yours, and why."""
