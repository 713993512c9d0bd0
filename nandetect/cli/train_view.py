"""How `nandetect train` looks: the findings before its first step; when it is done, the reports and a summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.cli import findings_view, output

if TYPE_CHECKING:
    from nandetect.records import Finding
    from nandetect.train.settings import InitCost, TrainResult, TrainSettings


def first(findings: Sequence[Finding], to_stderr: bool) -> None:
    """Print what the init audit found, before the first step."""
    output.write_lines([*findings_view.lines(findings), *([""] if findings else [])], to_stderr)


def show(result: TrainResult, told: Sequence[Finding], kept: Path | None, to_stderr: bool) -> None:
    """Print the reports, the summary, the findings that were not `told` before, and where the run is kept."""
    from rich.console import Console

    from nandetect.render import explosion

    console = Console(stderr=to_stderr)
    new = [finding for finding in result.findings if finding not in told]
    findings_view.show([finding for finding in new if finding.report], console)
    if result.explosion:
        explosion.show(result.explosion, console)
        new = [finding for finding in new if finding != result.explosion.cause]
    lines = [*summary(result), *findings_view.lines(finding for finding in new if not finding.report)]
    if kept:
        lines.append(f"`nandetect show {kept.stem}` prints this again, with the curves")
    console.file.write("\n".join(lines) + "\n")
    console.file.flush()


def summary(result: TrainResult) -> list[str]:
    """The run and its result in a few lines."""
    lines = [
        f"{_STOPPED[result.stopped]} {wording.counted(result.steps, 'step')} ({result.epochs:.1f} epochs) in {result.seconds:.1f} s"
        + (f", {wording.steps_per_second(result.steps_per_second)}" if result.steps_per_second else "")
        + (f"; compiling and the first step took {result.compile_seconds:.1f} s more" if result.compile_seconds is not None else "")
    ]
    if result.loss is not None:
        lines.append(f"loss {wording.short(result.loss)}  gradient {result.gradient_norm:.3g}  ({result.loss_name} loss, {result.dtype})")
    if result.accuracy is not None:
        train, held_out = f"{result.train_samples:,} training samples", f"{result.held_out_samples:,} held out"
        lines.append(f"accuracy {result.accuracy:.1%} on {train}, {result.held_out_accuracy:.1%} on {held_out}")
    if result.overfit:
        lines.append(f"every training sample right in epoch {result.overfit.epoch}, after {result.overfit.seconds:.2f} s")
    elif not result.failed:
        lines.append("no epoch yet in which every training sample was right")
    if result.toll:
        lines.append(cost(result.toll, result.init, any(finding.rule == "inputs-unscaled" for finding in result.findings)))
    return lines


def cost(toll: InitCost, init: str | None, unscaled: bool) -> str:
    """What the initial scale cost in epochs against another one."""
    goal = "every training sample right" if toll.loss is None else f"a training loss of {toll.loss:.3g}"
    here = f"{goal} in epoch {toll.epoch}"
    if toll.twin_epoch is not None and toll.twin_epoch < toll.epoch:
        saved = wording.counted(toll.epoch - toll.twin_epoch, "epoch")
        return f"init {init} cost {saved} against {toll.scheme}: {here}, with {toll.scheme} in epoch {toll.twin_epoch}"
    if not toll.complete:
        return f"what init {init} cost is not known: {here}; {toll.scheme} was stopped in epoch {toll.twin_epochs:.1f}, not there yet"
    other = f"in epoch {toll.twin_epoch} as well" if toll.twin_epoch is not None else "not by then"
    why = "; on inputs that were never scaled, small weights make up for their size" if unscaled else ""
    return f"init {init} cost no epochs against {toll.scheme}: {here}, with {toll.scheme} {other}{why}"


_STOPPED = {"finished": "trained for", "interrupted": "interrupted after", "non-finite": "stopped by a non-finite value after"}


def body(settings: TrainSettings, result: TrainResult) -> dict[str, object]:
    """The command's own part of the document."""
    return {"settings": dataclasses.asdict(settings), **output.body(result)}
