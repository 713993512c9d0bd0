"""`nandetect show`: the report of a recorded run, also while it is written."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's name or the start of it, `last`, a file or a directory; none lists all.")
    ] = None,
    tensorboard: Annotated[str | None, typer.Option(metavar="DIR", help="Write event files that TensorBoard reads.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="PATH", help="Write every kept point as CSV.")] = None,
    parquet: Annotated[str | None, typer.Option(metavar="PATH", help="Write every kept point as Parquet.")] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON; `-` is standard output.")] = None,
) -> None:
    """Print the report of a run that `nandetect train` or a Monitor has kept, or how one that goes on stands; without RUN, list them."""
    from nandetect import logbook
    from nandetect.cli import exports, show_view
    from nandetect.errors import UsageError
    from nandetect.render import json as documents

    if json:
        documents.check(json)
    wanted = {"tensorboard": tensorboard, "csv": csv, "parquet": parquet}
    if run is None:
        if any(wanted.values()):
            raise UsageError("--tensorboard, --csv and --parquet write one run: name it, or say `last`")
        kept = logbook.entries(logbook.default_directory())
        if json != "-":
            typer.echo("\n".join(show_view.listed(kept, logbook.default_directory())))
        if json:
            documents.write(documents.document("show", (), show_view.list_body(kept)), json)
        raise typer.Exit(0)
    found = logbook.read(logbook.find(run))
    exports.check(**wanted)
    if json != "-":
        show_view.show(found)
    exports.write(found, **wanted)
    if json:
        documents.write(documents.document("show", found.findings, show_view.body(found)), json)
    raise typer.Exit(1 if found.entry.errors else 0)
