"""`nandetect audit-init`: the initial weights of a model, before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from nandetect.cli import options, output, values


def command(
    target: Annotated[str, typer.Argument(help="A model file, mlp, FILE.py:function or package.module:function.")],
    data: Annotated[str, typer.Option(metavar="digits|mnist|DIR|FILE.npz", help="Of a model file: as for `nandetect train`.")] = "digits",
    inputs: Annotated[str, typer.Option(metavar="raw|unit|standard", help="Of a model file: how its inputs are scaled.")] = "standard",
    hidden: Annotated[str, typer.Option(metavar="N,N,...", help="Of a model file: widths of the hidden layers.")] = "128,40",
    loss: Annotated[str | None, typer.Option(metavar="NAME", help="Of a model file: which of its losses.")] = None,
    init: Annotated[str | None, typer.Option(metavar="NAME", help="Of a model file: which of its schemes.")] = None,
    seed: Annotated[int, typer.Option(help="Of the parameters.")] = 0,
    json: options.Json = None,
) -> None:
    """Hold a model's initial weights against the schemes, and see how signal and gradient travel through it at the start.

    A function returns the parameters (a pytree, a flax or equinox model), or a tuple (params, apply, inputs) with apply(params, inputs), or
    one with loss(params) as a fourth; it takes nothing, or a key. Exits 1 where there is an error or a warning.
    """
    document = output.JsonOutput(json)

    from nandetect.cli import audit_init_view
    from nandetect.train import auditable
    from nandetect.train.settings import TrainSettings

    settings = TrainSettings(
        model=target, data=data, inputs=inputs, hidden=values.widths("--hidden", hidden), loss=loss, init=init, seed=seed
    )
    model = auditable.load(target, settings)
    audit = auditable.audited(model)
    audit_init_view.show(model.name, audit, to_stderr=document.takes_stdout)
    document.write("audit-init", audit.findings, lambda: audit_init_view.body(model.name, audit))
    options.leave(at_fault=any(finding.severity != "note" for finding in audit.findings))
