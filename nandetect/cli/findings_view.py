"""Findings on a console: the whole report where there is one, else what and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from nandetect.records import Finding


def show(findings: Iterable[Finding], console: Console) -> None:
    """Print them, each after a blank line."""
    from nandetect.render import terminal

    for finding in findings:
        console.file.write("\n")
        if finding.report:
            terminal.show(finding.report, console)
        else:
            console.file.write("\n".join(lines(finding)) + "\n")


def lines(finding: Finding) -> list[str]:
    """A finding without a report."""
    return [f"{finding.severity}: {finding.message}", *([f"help: {finding.help}"] if finding.help else [])]
