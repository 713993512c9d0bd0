"""A report in a terminal: coloured where the terminal wants colour, else plain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nandetect.records import Report
from nandetect.render import layout

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

WIDTH = 100
_WIDEST = 120
_COLOURS = {
    "error": "bold red",
    "headline": "bold",
    "gutter": "blue",
    "caret": "bold red",
    "help": "bold green",
    "before": "red",
    "after": "green",
    "dim": "dim",
}


def width(console: Console, most: int = WIDTH) -> int:
    """How wide to write: as wide as a terminal is, and no wider than a page; a page, where nobody looks on."""
    return min(console.width, most) if console.is_terminal else WIDTH


def write(line: Text, console: Console) -> None:
    """A line, coloured on a terminal that wants it; else plain, whatever width the console believes in."""
    if console.is_terminal and not console.no_color:
        console.print(line, soft_wrap=True)
    else:
        console.file.write(line.plain + "\n")


def text(report: Report, width: int = WIDTH) -> str:
    """The report as plain text: no escapes, no trailing spaces."""
    return layout.text(report, width)


def rich_report(report: Report) -> _Painted:
    """The report as a rich renderable, laid out for the console it is printed on."""
    return _Painted(report)


@dataclass(frozen=True, slots=True)
class _Painted:
    report: Report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for line in layout.page(self.report, min(options.max_width, _WIDEST)):
            painted = Text(no_wrap=True, overflow="ignore")
            for span in line:
                painted.append(span.text, "" if console.no_color else _COLOURS.get(span.style, ""))
            painted.rstrip()
            yield painted


def show(report: Report, console: Console) -> None:
    """Print the report: coloured on a terminal, plain under `NO_COLOR` or into a pipe."""
    if console.is_terminal and not console.no_color:
        console.print(rich_report(report))
        return
    console.file.write(text(report, width(console, _WIDEST)) + "\n")
    console.file.flush()
