"""How findings look one below another: what is wrong, where else it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nandetect.records import Finding
from nandetect.render.page import wrap

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100


def show(findings: Iterable[Finding], console: Console) -> None:
    """Print findings: the reports of those that have one, then the others."""
    from nandetect.render import terminal

    kept = list(findings)
    for finding in kept:
        if finding.report:
            terminal.show(finding.report, console)
            console.file.write("\n")
    for line in lines(finding for finding in kept if not finding.report):
        console.file.write(line + "\n")


def lines(findings: Iterable[Finding], width: int = WIDTH) -> Iterator[str]:
    """The first finding of each rule and cause in full; of the others the layer, and what was measured there."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.rule, finding.cause), []).append(finding)
    for first, *others in groups.values():
        yield from _hanging(f"{first.severity}: {first.message} [{first.code}]", width)
        if others:
            yield from _hanging(f"  the same in {', '.join(map(_brief, others))}", width)
        if first.help:
            yield from _hanging(f"help: {first.help}", width)


def _hanging(text: str, width: int) -> list[str]:
    start, *rest = wrap(text, width)
    return [start, *(f"  {line}" for line in wrap(" ".join(rest), width - 2))] if rest else [start]


def _brief(finding: Finding) -> str:
    if isinstance(finding.measured, float) and isinstance(finding.expected, float):
        return f"`{finding.layer}` ({finding.measured:.3g} for {finding.expected:.3g})"
    return f"`{finding.layer}`"
