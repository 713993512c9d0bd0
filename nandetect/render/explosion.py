"""The exploding-gradient report as text: a small map of the gradient's size over steps and depth, what grew first, why, and what to try."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.render import heat_map, page, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nandetect.monitor.explosion import Explosion

_PALETTE = heat_map.Palette(
    colours=("blue", "cyan", "yellow", "red"),
    plain_shades=".-+#",
    zero=heat_map.Cell(char=" ", colour="default"),
    not_finite=heat_map.Cell(char="x", colour="bold red"),
    nothing=heat_map.Cell(char=" ", colour="default"),
)
_NAME = 24
# Characters that a picture of few steps is drawn out to, and the most for one step.
_WIDTH, _WIDEST = 40, 3
# The least range of the shades, in powers of ten: gradients that differ by less must not look as if one exploded.
_LEAST_SPAN = 1.0


def text(report: Explosion, width: int = 100, unicode: bool = True) -> str:
    """The report, without colour."""
    return drawn(report, width, unicode).plain


def show(report: Explosion, console: Console) -> None:
    """The report on a console, coloured where it allows, in letters where its encoding has no shades."""

    printed: Text = drawn(report, terminal.width(console), page.can_write(heat_map.SHADES, console.encoding))
    console.print(printed, soft_wrap=True)


def drawn(report: Explosion, width: int = 100, unicode: bool = True) -> Text:
    """The report as styled text of at most `width` columns."""
    from rich.text import Text

    out = Text()
    out.append(f"{report.cause.severity}: ", "bold red" if report.cause.severity == "error" else "bold yellow")
    out.append("\n       ".join(page.wrap(headline(report), width - 7)) + "\n", "bold")
    _map(out, report, width, unicode)
    facts = [f"most likely {report.cause.cause}: {report.cause.message}", *_facts(report)]
    for fact in facts:
        out.append("   = ", "blue").append("\n     ".join(page.wrap(fact, width - 5)) + "\n")
    if report.cause.help:
        out.append("help: ", "bold green").append("\n      ".join(page.wrap(report.cause.help, width - 6)) + f" [{report.cause.code}]\n")
    return out


def headline(report: Explosion) -> str:
    """Which layer, when, by how much."""
    first = report.first
    if first is None:
        largest = max(report.growths, key=lambda growth: growth.usual)
        return f"the gradient is too large from the first step on: {wording.rough(largest.usual)} in `{largest.layer}`"
    end = f", and was not finite from step {report.broken} on" if report.broken is not None else ""
    grew = f"ten times its usual size at step {first.step}, {wording.times_grown(first.factor)} at its largest"
    return f"the gradient of `{first.layer}` exploded first: {grew}{end}"


def _facts(report: Explosion) -> list[str]:
    """The layers after the first one to grow, in the order in which they grew."""
    grown = sorted((growth for growth in report.growths if growth.step is not None), key=lambda growth: (growth.step, -growth.factor))
    rest = [growth for growth in grown if growth is not report.first]
    if report.first is None:
        ends = report.growths[0], report.growths[-1]
        return (
            [f"at the first step: {' -> '.join(f'`{end.layer}` {wording.rough(end.usual)}' for end in ends)}"]
            if len(report.growths) > 1
            else []
        )
    first = f"`{report.first.layer}` {wording.rough(report.first.usual)} -> {wording.rough(report.first.largest)}"
    if not rest:
        return [f"from {first}; no other layer grew ten times"]
    then = ", ".join(f"`{growth.layer}` at step {growth.step} ({wording.times_grown(growth.factor)})" for growth in rest[:3])
    more = f", and {len(rest) - 3} more" if len(rest) > 3 else ""
    return [f"from {first}; then {then}{more}"]


def _map(out: Text, report: Explosion, width: int, unicode: bool) -> None:
    """Layers down, steps across; a column is as dark as its largest gradient."""
    names = [page.end_of(growth.layer, _NAME) for growth in report.growths]
    left = max(len(name) for name in names) + 3
    columns = _columns(report.levels, width - left - 1)
    low, high = _range(report.levels)
    bar = "│" if unicode else "|"
    out.append("\n" + " " * left + ("gradient norm, from the input down" if len(names) > 1 else "gradient norm") + "\n", "blue")
    for name, row in zip(names, columns, strict=True):
        out.append(f" {name:>{left - 3}} {bar}", "blue")
        heat_map.append(out, [_level(exponent, low, high) for exponent in row], _PALETTE, unicode)
        out.append("\n")
    corner, line = ("└", "─") if unicode else ("+", "-")
    across = len(columns[0])
    out.append(" " * (left - 1) + corner + line * across + "\n", "blue")
    first, last = f"step {report.steps[0]}", str(report.until)
    gap = max(across - len(first) - len(last), 1)
    out.append(" " * left + first + " " * gap + last + "\n", "blue")
    out.append(" " * left + _legend(low, high, _PALETTE.shades(unicode), report) + "\n\n", "blue")


def _legend(low: float, high: float, shades: str, report: Explosion) -> str:
    """What the shades stand for."""
    edges = [low + (high - low) * number / len(shades) for number in range(len(shades))]
    parts = [f"{shade} {wording.rough(10.0**edge)}" for shade, edge in zip(shades, edges, strict=True)]
    bad = any(level is not None and math.isinf(level) for row in report.levels for level in row)
    return "norm from  " + "  ".join(parts) + (f"  {_PALETTE.not_finite.char} not finite" if bad else "")


def _range(rows: Sequence[Sequence[float | None]]) -> tuple[float, float]:
    """From the least of the first column, or of all where that has none, to the largest of all, in powers of ten."""
    levels = _known([level for row in rows for level in row])
    if not levels:
        return 0.0, 1.0
    low, high = min(_known([row[0] for row in rows]) or levels), max(levels)
    return low, max(high, low + _LEAST_SPAN)


def _known(levels: Sequence[float | None]) -> list[float]:
    return [level for level in levels if level is not None and math.isfinite(level)]


def _level(exponent: float | None, low: float, high: float) -> float | None:
    """A power of ten as a level between these two."""
    if exponent is None:
        return None
    if math.isinf(exponent):
        return heat_map.NOT_FINITE
    return heat_map.ZERO if exponent < low else (exponent - low) / (high - low)


def _columns(levels: Sequence[Sequence[float | None]], most: int) -> list[list[float | None]]:
    """The rows with as many columns as fit: neighbours joined by their largest where there are more, drawn wider where there are few."""
    count = len(levels[0])
    most = max(min(most, count), 1)
    edges = [round(column * count / most) for column in range(most + 1)]
    wide = max(min(_WIDEST, _WIDTH // most), 1)
    return [[_largest(row[a:b]) for a, b in itertools.pairwise(edges) for _ in range(wide)] for row in levels]


def _largest(levels: Sequence[float | None]) -> float | None:
    return max((level for level in levels if level is not None), default=None)
