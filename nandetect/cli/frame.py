"""One frame of a training's live view: its progress, its curves, the gradient by layer and time, and the findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.render import curves, heat_map, page

if TYPE_CHECKING:
    from rich.text import Text

    from nandetect.history import History
    from nandetect.records import Finding
    from nandetect.render.overview import Map
    from nandetect.train.settings import Snapshot

SEVERITIES = {"error": "bold red", "warning": "yellow", "note": "dim"}
# The map's colours are of the 256 that terminals share.
_PALETTE = heat_map.Palette(
    colours=tuple(f"color({number})" for number in (17, 19, 25, 31, 37, 71, 107, 148, 184, 220, 208, 202)),
    plain_shades=".:+#",
    zero=heat_map.Cell(char="0", colour="dim"),
    not_finite=heat_map.Cell(char="!", colour="bold red"),
    nothing=heat_map.Cell(char=" ", colour=""),
)
# Characters of a layer's name and of its latest value, beside the map.
_NAME, _LATEST = 22, 9
# The width from which two curves stand beside one another, the fewest and the most rows of a curve, the most findings.
_NARROW, _SMALLEST, _TALLEST, _FINDINGS = 64, 4, 14, 4
_SERIES = ("loss", "accuracy", "gradient", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: `done` in words; where its end is known, the `share` that is done and the seconds `left`."""

    done: str = ""
    share: float | None = None
    left: float | None = None


def frame(
    history: History,
    snapshot: Snapshot | None,
    findings: Sequence[Finding],
    width: int,
    height: int,
    *,
    title: str = "",
    progress: Progress | None = None,
    braille: bool = True,
) -> Text:
    """The view in at most `height` lines of at most `width` characters; what does not fit is left out, from the least important on."""
    from rich.text import Text

    foot = _findings(findings, width, min(_FINDINGS, height // 4))
    head = [_headline(snapshot, title, width), _bar(progress or Progress(), width, braille)][:height]
    body = _body(history, width, max(height - len(head) - len(foot), 0), braille)
    lines = [*head, *body, *foot][:height]
    for line in lines:
        line.truncate(width)
        line.rstrip()
        if not braille:
            line.plain = line.plain.replace("…", "~")
    return Text("\n", no_wrap=True, end="").join(lines)


def _headline(snapshot: Snapshot | None, title: str, width: int) -> Text:
    """The title at the left, the steps per second at the right."""
    from rich.text import Text

    rate = wording.steps_per_second(snapshot.steps_per_second) if snapshot and snapshot.steps_per_second else ""
    shown = _cut(title, width - len(rate) - 2)
    return Text.assemble((shown, "bold"), " " * max(width - len(shown) - len(rate), 1), rate)


def _bar(progress: Progress, width: int, braille: bool) -> Text:
    """The progress in words, and as a bar where its end is known and there is room."""
    from rich.text import Text

    left = f"{wording.run_time(progress.left)} left" if progress.left is not None else ""
    words = "   ".join(part for part in (progress.done, left) if part)
    room = min(width - len(words) - 10, 60)
    if progress.share is None or room < 5:
        return Text(words)
    full = round(room * progress.share)
    done, rest = ("━", "─") if braille else ("#", "-")
    return Text.assemble((done * full, "green"), (rest * (room - full), "dim"), f" {progress.share:4.0%}   {words}")


def _body(history: History, width: int, room: int, braille: bool) -> list[Text]:
    """The pictures in the room that there is: one pair of curves and the map where both fit, else more curves."""
    rows = min(_layers(history), max(room // 2 - 4, 0))
    if room < _SMALLEST + 2:
        return []
    if rows and room >= 2 * (_SMALLEST + 2):
        return pictures(history, width, min(room - rows - 5, _TALLEST), rows, 1, braille)
    pairs = max(min(len(_pairs(history, width)), room // (_SMALLEST + 2)), 1)
    return pictures(history, width, min(room // pairs - 2, _TALLEST), 0, pairs, braille)


def pictures(history: History, width: int, tall: int, layers: int, pairs: int, braille: bool) -> list[Text]:
    """`pairs` of curves, each `tall` rows, and below them the map in at most `layers` rows; a blank line before each."""
    from rich.text import Text

    lines: list[Text] = []
    for names in _pairs(history, width)[:pairs]:
        lines += [Text(""), *_beside(history, names, width, tall, braille)]
    if len(history) and (rows := min(_layers(history), layers)):
        lines += [Text(""), *_map(history, rows, width, braille)]
    return lines


def _layers(history: History) -> int:
    return len(history.leaves) if "gradient" in history.layers else 0


def _pairs(history: History, width: int) -> list[list[str]]:
    """The series that are drawn, two beside one another where it is wide enough."""
    names = [name for name in _SERIES if len(history) and name in history.series]
    return [[name] for name in names] if width < _NARROW else [names[start : start + 2] for start in range(0, len(names), 2)]


def _beside(history: History, names: Sequence[str], width: int, height: int, braille: bool) -> list[Text]:
    """The curves of one series, or of two beside one another."""
    if len(names) == 1:
        return _curve(history, names[0], width, height, braille)
    half = (width - 2) // 2
    left, right = (_curve(history, name, half, height, braille) for name in names)
    for line, other in zip(left, right, strict=True):
        line.pad_right(half + 2 - len(line.plain))
        line.append_text(other)
        line.rstrip()
    return left


def _curve(history: History, name: str, width: int, height: int, braille: bool) -> list[Text]:
    """A line that names the series and its latest value, and the curve."""
    from rich.text import Text

    from nandetect.render import overview

    is_share = name == "accuracy"
    written: Callable[[float], str] = wording.share if is_share else _number
    drawn = overview.curve(history, name, max(2 * (width - curves.LABEL - 2), 2), (0.0, 1.0) if is_share else None)
    if drawn is None:
        return [Text.assemble((name, "bold"), " not finite"), *(Text("") for _ in range(height))]
    rows = curves.curve(drawn.low, drawn.high, (written(drawn.top), written(drawn.bottom)), height, braille)
    head = Text.assemble((name, "bold"), f" {written(drawn.latest)}", (" (log scale)" if drawn.log else "", "dim"))
    style = "green" if is_share else "cyan"
    return [head, *(Text.assemble((row[: curves.LABEL + 2], "dim"), (row[curves.LABEL + 2 :], style)) for row in rows)]


def _map(history: History, rows: int, width: int, braille: bool) -> list[Text]:
    """The gradient by layer and time, with a legend above and the steps below; nothing where it is too narrow."""
    from rich.text import Text

    from nandetect.render import overview

    columns = width - _NAME - _LATEST - 2
    drawn = overview.gradient_map(history, rows, columns) if columns >= 8 else None
    if drawn is None:
        return []
    head = Text.assemble(("gradient by layer", "bold"), f"  {_number(drawn.bottom)} {_PALETTE.shades(braille)} {_number(drawn.top)}")
    first, last = f"step {int(history.steps[0]):,}", f"{int(history.steps[-1]):,}"
    axis = Text(" " * (_NAME + 1) + first + last.rjust(columns - len(first)), style="dim")
    return [head, *(_row(drawn, row, braille) for row in range(len(drawn.names))), axis]


def _row(drawn: Map, row: int, braille: bool) -> Text:
    """A row of the map: the layer's name, its levels, its latest value."""
    from rich.text import Text

    line = Text(f"{page.end_of(drawn.names[row], _NAME):>{_NAME}} ")
    heat_map.append(line, drawn.levels[row], _PALETTE, braille)
    line.append(f"{_number(drawn.latest[row]):>{_LATEST + 1}}", "dim")
    return line


def _findings(findings: Sequence[Finding], width: int, most: int) -> list[Text]:
    """The findings in their order, the newest last; where not all fit, errors are kept before others."""
    from rich.text import Text

    if not findings or most < 1:
        return []
    shown = sorted(findings, key=lambda finding: list(SEVERITIES).index(finding.severity))[:most]
    lines = [
        Text.assemble((f"{finding.severity}: ", SEVERITIES[finding.severity]), _cut(finding.message, width - len(finding.severity) - 2))
        for finding in findings
        if finding in shown
    ][:most]
    more = len(findings) - len(lines)
    return [Text(f"{more} more" if more else ""), *lines]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def _number(value: float) -> str:
    """A number in at most eight characters: there is room for those beside a curve."""
    return wording.short(value, 3)
