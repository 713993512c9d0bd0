"""How `nandetect train` looks: one live line while it runs, a summary when it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nandetect.cli import live
from nandetect.records import plain

if TYPE_CHECKING:
    from nandetect.train import Result, Settings, Snapshot


@contextmanager
def progress() -> Iterator[Callable[[Snapshot], None]]:
    """Where to send snapshots."""
    with live.lines() as say:
        yield lambda snapshot: say(line(snapshot))


def line(now: Snapshot) -> str:
    """A run at one step, in one line."""
    rate = f"  {now.steps_per_second:,.0f} steps/s" if now.steps_per_second else ""
    return f"step {now.step}  loss {now.loss:.4g}  accuracy {now.accuracy:.1%}{rate}  gradient {now.gradient_norm:.3g}"


def show(result: Result, to_stderr: bool) -> None:
    """The report where there is one, then the summary."""
    from rich.console import Console

    from nandetect.render import terminal

    console = Console(stderr=to_stderr)
    for finding in result.findings:
        if finding.report:
            terminal.show(finding.report, console)
            console.file.write("\n")
    console.file.write("\n".join(summary(result)) + "\n")
    console.file.flush()


def summary(result: Result) -> list[str]:
    """What was done and what came of it, in a few lines."""
    lines = [
        f"{_STOPPED[result.stopped]} {_count(result.steps, 'step')} ({result.epochs:.1f} epochs) in {result.seconds:.1f} s"
        + (f", {result.steps_per_second:,.0f} steps/s" if result.steps_per_second else "")
        + (f"; compiling and the first step took {result.compile_seconds:.1f} s more" if result.compile_seconds is not None else "")
    ]
    if result.loss is not None:
        lines.append(f"loss {result.loss:.4g}  gradient {result.gradient_norm:.3g}  ({result.loss_name} loss, {result.dtype})")
    if result.accuracy is not None:
        train, held_out = f"{result.train_samples:,} training samples", f"{result.held_out_samples:,} held out"
        lines.append(f"accuracy {result.accuracy:.1%} on {train}, {result.held_out_accuracy:.1%} on {held_out}")
    if result.overfit:
        lines.append(f"every training sample right in epoch {result.overfit.epoch}, after {result.overfit.seconds:.2f} s")
    elif not result.failed:
        lines.append("no epoch yet in which every training sample was right")
    for finding in result.findings:
        if finding.report is None:
            lines += [f"{finding.severity}: {finding.message}", f"help: {finding.help}"]
    return lines


_STOPPED = {"finished": "trained for", "interrupted": "interrupted after", "non-finite": "stopped by a non-finite value after"}


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def body(settings: Settings, result: Result) -> dict[str, Any]:
    """The document's own part; the findings stand beside it."""
    done = plain(result)
    del done["findings"]
    return {"settings": dataclasses.asdict(settings), **done}
