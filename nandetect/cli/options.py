"""What the commands have in common: the option `--json`, and the exit code."""

from __future__ import annotations

from typing import Annotated, NoReturn, TypeAlias

import typer

NoProof: TypeAlias = Annotated[bool, typer.Option("--no-proof", help="Do not try the fix on the step itself.")]
Json: TypeAlias = Annotated[str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON; `-` is standard output.")]


def leave(at_fault: bool) -> NoReturn:
    """End the command: exit 1 where a fault was found and reported, else 0."""
    raise typer.Exit(1 if at_fault else 0)
