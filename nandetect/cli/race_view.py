"""How `nandetect race` looks: the verdict first, the table, the curves, and the report of whoever turned non-finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nandetect.cli import race_words as words
from nandetect.records import plain
from nandetect.render import curves
from nandetect.render.page import wrap

if TYPE_CHECKING:
    from rich.text import Text

    from nandetect.race.result import RaceResult

_WIDTH = 100
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
_SPREADS = (
    "target.seconds",
    "target.epoch",
    "settled.seconds",
    "settled.epoch",
    "accuracy",
    "held_out_accuracy",
    "loss",
    "steps_per_second",
)


def show(result: RaceResult, to_stderr: bool) -> None:
    """Print the race."""
    from rich.console import Console

    from nandetect.render import terminal

    console = Console(stderr=to_stderr)
    for line in lines(result, terminal.width(console), curves.can_draw_braille(console.encoding)):
        terminal.write(line, console)
    for finding in result.findings:
        console.file.write(f"\n{finding.severity}: {finding.message}\n")
        if finding.report:
            terminal.show(finding.report, console)
    console.file.flush()


def lines(result: RaceResult, width: int = _WIDTH, braille: bool = True) -> Iterator[Text]:
    """Everything but the reports, line by line."""
    from rich.text import Text

    # The verdict is one line whatever the width: it is what a reader greps for.
    yield Text(words.verdict(result), style="bold")
    yield Text("")
    yield from _table(result, width)
    yield from (Text(piece, style="dim") for piece in wrap(words.conditions(result), width))
    if result.standings[0].curve.seconds:
        yield Text("")
        yield from _picture(result, width, braille)
    yield Text("")
    for line in words.judgement(result):
        yield from (Text(piece, style="dim") for piece in wrap(line, width))


def _table(result: RaceResult, width: int) -> Iterator[Text]:
    """A column for each entrant, as many beside one another as fit."""
    from rich.text import Text

    rows = words.rows(result)
    title = max(len(name) for name, _ in rows) + 3
    heads = [f"{curves.letter(at)} {one.name}" for at, one in enumerate(result.standings)]
    columns = [[head, *(texts[at] for _, texts in rows)] for at, head in enumerate(heads)]
    widths = [max(map(len, column)) + 3 for column in columns]
    at = 0
    while at < len(columns):
        end = at + 1
        while end < len(columns) and title + sum(widths[at : end + 1]) <= width + 3:
            end += 1
        head = Text(" " * title)
        for column in range(at, end):
            head.append(f"{heads[column]:<{widths[column]}}", style=_colour(column))
        head.rstrip()
        yield head
        for name, texts in rows:
            told = "".join(f"{texts[column]:<{widths[column]}}" for column in range(at, end))
            yield Text(f"{name:<{title}}{told}".rstrip())
        yield Text("")
        at = end


def _picture(result: RaceResult, width: int, braille: bool) -> Iterator[Text]:
    from rich.text import Text

    yield Text("accuracy on the training samples against an entrant's own time (median of the seeds)")
    shown = [[None if seen is None else seen.median for seen in one.curve.training] for one in result.standings]
    for row in curves.picture(result.standings[0].curve.seconds, shown, width, braille):
        line = Text(no_wrap=True)
        for piece in row:
            line.append(piece.text, style="" if piece.curve is None else _colour(piece.curve))
        line.rstrip()
        yield line
    legend = Text(" " * 7)
    for at, one in enumerate(result.standings):
        legend.append(f"{curves.letter(at)} {one.name}   ", style=_colour(at))
    legend.rstrip()
    yield legend


def _colour(curve: int) -> str:
    return _COLOURS[curve % len(_COLOURS)]


def body(result: RaceResult) -> dict[str, Any]:
    """The document's own part; the findings stand beside it."""
    told = plain(result)
    del told["findings"]
    for one, standing in zip(told["standings"], result.standings, strict=True):
        one["spread"] = {name.replace(".", "_"): plain(standing.over_seeds(name)) for name in _SPREADS}
    return {"verdict": words.verdict(result), **told}
