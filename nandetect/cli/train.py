"""`nandetect train`: a small model trained as a first attempt would, and with `--debug-nans` where its first NaN came from."""

from __future__ import annotations

from typing import Annotated

import typer

from nandetect import fixing
from nandetect.cli import options, output, values


def command(
    model: Annotated[str, typer.Option(metavar="FILE.py|mlp", help="A model file of your own, or the bundled one.")] = "mlp",
    data: Annotated[
        str, typer.Option(metavar="digits|mnist|DIR|FILE.npz", help="Embedded digits, MNIST, IDX files, or arrays.")
    ] = "digits",
    samples: Annotated[int | None, typer.Option(metavar="N", help="Train on N samples, of every class alike.")] = None,
    inputs: Annotated[str, typer.Option(metavar="raw|unit|standard", help="Pixels as they are, to 0..1, or standardised.")] = "raw",
    hidden: Annotated[str, typer.Option(metavar="N,N,...", help="Widths of the hidden layers.")] = "128,40",
    loss: Annotated[str | None, typer.Option(metavar="NAME", help="A loss of the model file: naive, xlogy, stable.")] = None,
    init: Annotated[str | None, typer.Option(metavar="NAME", help="he, he-wrong, glorot, lecun or unit.")] = None,
    optimizer: Annotated[str, typer.Option(metavar="sgd|momentum|adam", help="How the parameters are updated.")] = "adam",
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.004,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Samples in a mini-batch.")] = 40,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Stop after N epochs.")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Stop after N steps; 2000 where nothing says when.")] = None,
    time_limit: Annotated[str | None, typer.Option(metavar="30s|5m|1h", help="Stop after this time.")] = None,
    seed: Annotated[int, typer.Option(help="Of the parameters, the samples and their order.")] = 0,
    no_jit: Annotated[bool, typer.Option("--no-jit", help="Run the step op by op.")] = False,
    x64: Annotated[bool, typer.Option("--x64", help="Let JAX compute in float64.")] = False,
    dtype: Annotated[str | None, typer.Option(metavar="float32|bfloat16|float16|float64", help="Of parameters and inputs.")] = None,
    debug_nans: Annotated[bool, typer.Option("--debug-nans", help="Stop at a non-finite value and say where it came from.")] = False,
    no_proof: options.NoProof = False,
    no_audit: Annotated[bool, typer.Option("--no-audit", help="Do not look at the initial weights first.")] = False,
    record: Annotated[str | None, typer.Option(metavar="DIR", help="Keep the run's record there, not among all others.")] = None,
    no_record: Annotated[bool, typer.Option("--no-record", help="Keep no record of the run.")] = False,
    tensorboard: Annotated[str | None, typer.Option(metavar="DIR", help="Write event files that TensorBoard reads.")] = None,
    no_live: Annotated[bool, typer.Option("--no-live", help="Plain lines on a terminal too.")] = False,
    json: options.Json = None,
) -> None:
    """Train a small model on handwritten digits; with --debug-nans, find the operation that made the first NaN."""
    document = output.JsonOutput(json)

    from nandetect.cli import exports, train_live, train_record, train_view
    from nandetect.logbook import read
    from nandetect.train.loop import run
    from nandetect.train.observers import Observers
    from nandetect.train.settings import TrainSettings

    exports.check(tensorboard)
    fixing.PROVES = not no_proof
    settings = TrainSettings(
        model=model,
        data=data,
        samples=samples,
        inputs=inputs,
        hidden=values.widths("--hidden", hidden),
        loss=loss,
        init=init,
        optimizer=optimizer,
        lr=lr,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        time_limit=None if time_limit is None else values.seconds("--time-limit", time_limit),
        seed=seed,
        jit=not no_jit,
        x64=x64,
        dtype=dtype,
        debug_nans=debug_nans,
        audit=not no_audit,
    )
    opening = train_live.Opening(to_stderr=document.takes_stdout)
    with train_record.recording(settings, record, not no_record, needed=tensorboard is not None) as kept:
        with train_live.view(settings, wanted=not no_live) as view:
            result = run(settings, Observers(opening, view, kept))
        kept.finish(result, train_view.summary(result))
        train_view.show(result, opening.told, None if no_record else kept.path, to_stderr=document.takes_stdout)
        if tensorboard and kept.path:
            exports.write(read(kept.path), tensorboard)
        document.write("train", result.findings, lambda: train_view.body(settings, result))
    options.leave(at_fault=result.failed)
