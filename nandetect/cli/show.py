"""`nandetect show`: the report of a recorded run, also while it is written."""

from __future__ import annotations

from typing import Annotated

import typer

from nandetect.cli import options, output


def command(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's name or the start of it, `last`, a file or a directory; none lists all.")
    ] = None,
    tensorboard: Annotated[str | None, typer.Option(metavar="DIR", help="Write event files that TensorBoard reads.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="PATH", help="Write every kept point as CSV.")] = None,
    parquet: Annotated[str | None, typer.Option(metavar="PATH", help="Write every kept point as Parquet.")] = None,
    json: options.Json = None,
) -> None:
    """Print the report of a run that `nandetect train` or a Monitor has kept, or how one that goes on stands; without RUN, list them."""
    document = output.JsonOutput(json)

    from nandetect import logbook
    from nandetect.cli import exports, show_view
    from nandetect.errors import UsageError, said

    wanted = {"tensorboard": tensorboard, "csv": csv, "parquet": parquet}
    if run is None:
        if any(wanted.values()):
            raise UsageError("--tensorboard, --csv and --parquet write one run: name it, or say `last`")
        kept = logbook.entries(logbook.default_directory())
        if not document.takes_stdout:
            output.write_lines(show_view.listed(kept, logbook.default_directory()))
        document.write("show", (), lambda: show_view.list_body(kept))
        options.leave(at_fault=False)
    found = logbook.find(run)
    exports.check(**wanted)
    try:
        recorded = logbook.read(found)
        if not document.takes_stdout:
            show_view.show(recorded)
        exports.write(recorded, **wanted)
        document.write("show", recorded.findings, lambda: show_view.body(recorded))
    except (UsageError, OSError):
        raise
    # Bytes of the record have changed: what they are read as may be anything.
    except Exception as error:
        raise UsageError(f"{found} is damaged: {said(error)}") from error
    # Who asks for a file is answered by it; without one, the answer is what was found.
    options.leave(at_fault=bool(recorded.entry.errors) and not any(wanted.values()))
