"""`nandetect diff-loss`: two losses held against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nandetect.cli import options, output
from nandetect.errors import UsageError


def command(
    first: Annotated[str, typer.Argument(metavar="A", help="naive, stable, xlogy, FILE.py:function or package.module:function.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    labels: Annotated[
        str | None, typer.Option(metavar="onehot|classes|real|none", help="What the labels are; else found by trying.")
    ] = None,
    shape: Annotated[str | None, typer.Option(metavar="N,N", help="Of the first argument, which is swept; 4,10 unless given.")] = None,
    classes: Annotated[int | None, typer.Option(metavar="N", help="Columns of the first argument.")] = None,
    args: Annotated[Path | None, typer.Option("--args", metavar="FILE.npz", help="The arguments as arrays.")] = None,
    dtype: Annotated[str, typer.Option(metavar="float32|bfloat16|float16|float64", help="In which the two are judged.")] = "float32",
    max_ulp: Annotated[float, typer.Option(metavar="N", help="How far from the truth is a fault.")] = 16.0,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
    train: Annotated[bool, typer.Option("--train", help="Train the bundled model under each as well.")] = False,
    x64: Annotated[bool, typer.Option("--x64", help="Let JAX compute in float64.")] = False,
    json: options.Json = None,
) -> None:
    """Hold two losses against exact arithmetic: where each breaks, how far off it is, what it costs, and whether they are one function."""
    document = output.JsonOutput(json)

    from nandetect.cli import diff_loss_view
    from nandetect.compare import CompareSettings, compare

    asked = CompareSettings(
        first=first,
        second=second,
        labels=labels,
        shape=None if shape is None else _sizes(shape),
        classes=classes,
        archive=args,
        dtype=dtype,
        max_ulp=max_ulp,
        seed=seed,
        train=train,
        x64=x64,
    )
    comparison = compare(asked)
    diff_loss_view.show(comparison, to_stderr=document.takes_stdout)
    document.write("diff-loss", comparison.findings, lambda: output.body(comparison))
    options.leave(at_fault=any(finding.severity == "error" for finding in comparison.findings))


def _sizes(text: str) -> tuple[int, ...]:
    """`4,10` as a shape; an empty text is the shape of one number."""
    try:
        return tuple(int(size) for size in text.strip("()[] ").split(",") if size.strip())
    except ValueError as error:
        raise UsageError(f"--shape {text}: give whole numbers with commas between, such as 4,10") from error
