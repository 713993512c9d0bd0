"""How `nandetect race` looks: the verdict, the table, the curves, and a report for each entrant that turned non-finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nandetect.cli import output
from nandetect.cli import race_words as words
from nandetect.records import plain
from nandetect.render import curves
from nandetect.render.page import wrap

if TYPE_CHECKING:
    from rich.text import Text

    from nandetect.race.result import RaceResult, Standing

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
    """All lines but those of the reports."""
    from rich.text import Text

    # The verdict is one line whatever the width, so that it can be grepped for.
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
    heads = [f"{curves.letter(number)} {standing.name}" for number, standing in enumerate(result.standings)]
    columns = [[head, *(texts[number] for _, texts in rows)] for number, head in enumerate(heads)]
    widths = [max(map(len, column)) + 3 for column in columns]
    start = 0
    while start < len(columns):
        end = start + 1
        while end < len(columns) and title + sum(widths[start : end + 1]) <= width + 3:
            end += 1
        head = Text(" " * title)
        for column in range(start, end):
            head.append(f"{heads[column]:<{widths[column]}}", style=_colour(column))
        head.rstrip()
        yield head
        for name, texts in rows:
            cells = "".join(f"{texts[column]:<{widths[column]}}" for column in range(start, end))
            yield Text(f"{name:<{title}}{cells}".rstrip())
        yield Text("")
        start = end


def _picture(result: RaceResult, width: int, braille: bool) -> Iterator[Text]:
    """The curves of all entrants in one picture, and whose is which."""
    from rich.text import Text

    yield Text("accuracy on the training samples against an entrant's own time (median of the seeds)")
    shown = [[None if spread is None else spread.median for spread in standing.curve.training] for standing in result.standings]
    for row in curves.picture(result.standings[0].curve.seconds, shown, width, braille):
        line = Text(no_wrap=True)
        for piece in row:
            line.append(piece.text, style="" if piece.curve is None else _colour(piece.curve))
        line.rstrip()
        yield line
    legend = Text(" " * 7)
    for number, standing in enumerate(result.standings):
        legend.append(f"{curves.letter(number)} {standing.name}   ", style=_colour(number))
    legend.rstrip()
    yield legend


def _colour(curve: int) -> str:
    return _COLOURS[curve % len(_COLOURS)]


def body(result: RaceResult) -> dict[str, object]:
    """The command's own part of the document."""
    standings = [{**plain(standing), "spread": _spreads(standing)} for standing in result.standings]
    return {"verdict": words.verdict(result), **output.body(result), "standings": standings}


def _spreads(standing: Standing) -> dict[str, object]:
    """The least, the median and the most of each figure over the seeds of an entrant."""
    return {name.replace(".", "_"): plain(standing.over_seeds(name)) for name in _SPREADS}
