"""`nandetect audit-init`: the initial weights of a model, before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from nandetect.cli import values


def command(
    target: Annotated[str, typer.Argument(help="A model file, mlp, FILE.py:function or package.module:function.")],
    data: Annotated[str, typer.Option(metavar="digits|mnist|DIR|FILE.npz", help="Of a model file: as for `nandetect train`.")] = "digits",
    inputs: Annotated[str, typer.Option(metavar="raw|unit|standard", help="Of a model file: how its inputs are scaled.")] = "standard",
    hidden: Annotated[str, typer.Option(metavar="N,N,...", help="Of a model file: widths of the hidden layers.")] = "128,40",
    loss: Annotated[str | None, typer.Option(metavar="NAME", help="Of a model file: which of its losses.")] = None,
    init: Annotated[str | None, typer.Option(metavar="NAME", help="Of a model file: which of its schemes.")] = None,
    seed: Annotated[int, typer.Option(help="Of the parameters.")] = 0,
    json: Annotated[str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON; `-` is standard output.")] = None,
) -> None:
    """Hold a model's initial weights against the schemes, and see how signal and gradient travel through it at the start.

    A function returns the parameters (a pytree, a flax or equinox model), or a tuple (params, apply, inputs) with apply(params, inputs), or
    one with loss(params) as a fourth; it takes nothing, or a key. Exits 1 where there is an error or a warning.
    """
    from nandetect.cli import audit_init_view
    from nandetect.render import json as documents

    if json:
        documents.check(json)
    from nandetect.train import auditable
    from nandetect.train.settings import TrainSettings

    settings = TrainSettings(
        model=target, data=data, inputs=inputs, hidden=values.widths("--hidden", hidden), loss=loss, init=init, seed=seed
    )
    subject = auditable.load(target, settings)
    audit = auditable.audited(subject)
    audit_init_view.show(subject.name, audit, to_stderr=json == "-")
    if json:
        documents.write(documents.document("audit-init", audit.findings, audit_init_view.body(subject.name, audit)), json)
    raise typer.Exit(1 if any(finding.severity != "note" for finding in audit.findings) else 0)
