"""`nandetect inspect`: the program as its author wrote it, with the equations that JAX makes of every line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nandetect.cli import options, output


def command(
    target: Annotated[str, typer.Argument(help="FILE.py:function, package.module:function, or a model file.")],
    shape: Annotated[list[str] | None, typer.Option("--shape", metavar="f32[8,64]", help="An argument's shape; once for each.")] = None,
    args: Annotated[Path | None, typer.Option("--args", metavar="FILE.npz", help="The arguments as arrays.")] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="Of a model file: which of its losses.")] = None,
    grad: Annotated[bool | None, typer.Option("--grad/--no-grad", help="With the gradient for the first argument.")] = None,
    jaxpr: Annotated[bool, typer.Option("--jaxpr", help="Print the jaxpr itself, the source beside each equation.")] = False,
    json: options.Json = None,
) -> None:
    """Show what JAX makes of every line of a function, forward and backward, with shapes and dtypes.

    Shapes come from --shape or --args, else from `example_args` or `make()` in the file; for a model file, from the embedded digits.
    """
    document = output.JsonOutput(json)

    from nandetect.render import listing as render
    from nandetect.targets import traceable
    from nandetect.targets.equations import listing

    shown = listing(traceable.load(target, shapes=shape or (), archive=args, loss=loss, gradient=grad))
    if not document.takes_stdout:
        output.write_lines(render.jaxpr(shown) if jaxpr else render.annotated(shown))
    document.write("inspect", (), lambda: render.data(shown))
