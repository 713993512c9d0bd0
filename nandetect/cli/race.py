"""`nandetect race`: entrants trained side by side, judged by accuracy within a time."""

from __future__ import annotations

from typing import Annotated

import typer

from nandetect.cli import options, output


def command(
    entrants: Annotated[list[str], typer.Argument(metavar="A B [C]...", help="mlp, FILE.py, or with settings: mlp:init=he-wrong,lr=0.01.")],
    time_limit: Annotated[str, typer.Option(metavar="30s|5m|1h", help="For all of the racing; compiling comes before.")] = "30s",
    data: Annotated[str, typer.Option(metavar="digits|mnist|DIR|FILE.npz", help="As for `nandetect train`.")] = "digits",
    samples: Annotated[int, typer.Option(metavar="N", help="Train on N samples, of every class alike.")] = 40,
    inputs: Annotated[str, typer.Option(metavar="raw|unit|standard", help="Pixels as they are, to 0..1, or standardised.")] = "standard",
    seeds: Annotated[int, typer.Option(metavar="N", help="How often each entrant starts anew; fewer than 6 can show no winner.")] = 8,
    target: Annotated[str, typer.Option(metavar="SHARE", help="Training samples to be right: what the time is taken to.")] = "100%",
    html: Annotated[str | None, typer.Option(metavar="PATH", help="Write plot and table as one HTML file.")] = None,
    png: Annotated[str | None, typer.Option(metavar="PATH", help="Write the plot as a picture.")] = None,
    json: options.Json = None,
) -> None:
    """Race two or more trainings: the same data, seeds and order of batches, turns in small slices, compile time apart.

    An entrant's settings are init, loss, lr, optimizer, hidden (128x40), dtype, jit (yes or no), batch-size and inputs; what it does not
    say is as in `nandetect train`, but for the optimizer (momentum), lr (0.05) and inputs (standard). Who wins is decided by the time to
    the target, or where nobody gets there by the held-out accuracy at the end, with a paired exact sign-flip test over the seeds.
    """
    document = output.JsonOutput(json)

    from nandetect.cli import live, race_plot, race_view, values
    from nandetect.render import files

    for path, option in ((html, "--html"), (png, "--png")):
        if path:
            files.check(path, option)
    if html or png:
        race_plot.require()
    from nandetect.race import RaceSettings, run

    settings = RaceSettings(
        entrants=tuple(entrants),
        data=data,
        samples=samples,
        inputs=inputs,
        seeds=seeds,
        time_limit=values.seconds("--time-limit", time_limit),
        target=values.share("--target", target),
    )
    with live.lines() as say:
        result = run(settings, say)
    race_view.show(result, to_stderr=document.takes_stdout)
    if html:
        files.write(race_plot.page(result).encode(), html, "--html")
    if png:
        files.write(race_plot.plot(result, "png"), png, "--png")
    document.write("race", result.findings, lambda: race_view.body(result))
    options.leave(at_fault=bool(result.findings))
