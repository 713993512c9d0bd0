"""Curves as text, in braille dots that plotille's canvas draws, or in letters where the encoding has no braille.

`curve` draws one series, its columns joined by slanting lines; `picture` draws several in one frame, as steps over the logarithm of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nandetect import wording
from nandetect.render import page

HEIGHT = 12
# Characters of the labels at the left of `curve`, and of those of `picture` with the space behind them.
LABEL, _LEFT = 8, 6
# Every so many columns a curve shows its letter, so that it can be told from the others without colour.
_LETTERS = 14
# The braille character without dots; the dots of another are the bits of its distance from this one.
_BLANK = "\u2800"

# A line from one dot to another: `(x, y, x, y)`, counted from the lower left corner.
Stroke = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of characters of one curve, or of none."""

    text: str
    curve: int | None = None


Row = tuple[Piece, ...]


def letter(curve: int) -> str:
    """A, B, C ..., by which a curve is named in the picture."""
    return chr(ord("A") + curve % 26)


def can_draw_braille(encoding: str) -> bool:
    """Whether a stream of that encoding takes braille."""
    return page.can_write(_BLANK, encoding)


def curve(
    low: Sequence[float | None], high: Sequence[float | None], labels: tuple[str, str], height: int, braille: bool = True
) -> list[str]:
    """A curve by the extremes of each of its columns of dots, two to a character; `labels` are what the top and the bottom stand for."""
    rows = [row.replace(_BLANK, " ") for row in _drawn(_slanting(low, high, 4 * height), (len(low) + 1) // 2, height)]
    if not braille:
        rows = ["".join("*" if char != " " else " " for char in row) for row in rows]
    bar = "│" if braille else "|"
    ends = {0: labels[0], height - 1: labels[1]}
    return [f"{ends.get(number, ''):>{LABEL}} {bar}{row}".rstrip() for number, row in enumerate(rows)]


def picture(times: Sequence[float], curves: Sequence[Sequence[float | None]], width: int, braille: bool = True) -> list[Row]:
    """The curves over `times` (which grow by a constant factor), each a share for every time or None; `width` characters wide in all."""
    columns = max(width - _LEFT - 1, 10)
    drawn = [_drawn(_stepping(curve, 2 * columns, 4 * HEIGHT), columns, HEIGHT) for curve in curves]
    rows: list[Row] = []
    for row in range(HEIGHT):
        label = {0: "100%", (HEIGHT - 1) // 2: " 50%", HEIGHT - 1: "  0%"}.get(row, "")
        pieces = [_cell([rows_of_curve[row][column] for rows_of_curve in drawn], column, braille) for column in range(columns)]
        rows.append((Piece(f"{label:>{_LEFT - 1}} {'│' if braille else '|'}"), *pieces))
    return [*rows, *_axis(times, columns, braille)]


def _drawn(strokes: Iterable[Stroke], width: int, height: int) -> list[str]:
    """The strokes as rows of braille, `width` characters each."""
    from plotille import Canvas

    canvas = Canvas(width, height, 0, 0, 2 * width, 4 * height)
    for stroke in strokes:
        canvas.line(*stroke)
    return canvas.plot().split("\n")


def _slanting(low: Sequence[float | None], high: Sequence[float | None], dots: int) -> Iterator[Stroke]:
    """From the lower to the upper extreme of each column, and from the middle of each to the next one's."""
    before: tuple[int, int] | None = None
    for x, (least, most) in enumerate(zip(low, high, strict=True)):
        if least is None or most is None:
            continue
        below, above = (round(share * (dots - 1)) for share in (least, most))
        middle = (below + above) // 2
        yield x, below, x, above
        if before is not None:
            yield *before, x, middle
        before = (x, middle)


def _stepping(curve: Sequence[float | None], across: int, dots: int) -> Iterator[Stroke]:
    """The value of each column of dots; where it jumps, the dots between are drawn in the column that it jumps in."""
    before: int | None = None
    for x in range(across):
        value = curve[round(x * (len(curve) - 1) / (across - 1))]
        if value is None:
            continue
        y = dots - 1 - round((1 - min(max(value, 0.0), 1.0)) * (dots - 1))
        yield x, y if before is None else before, x, y
        before = y


def _cell(chars: Sequence[str], column: int, braille: bool) -> Piece:
    """One character of all curves: the first that goes through it gives its colour, and now and then its letter."""
    through = [curve for curve, char in enumerate(chars) if char != _BLANK]
    if not through:
        return Piece(" ")
    for curve in through:
        if column % _LETTERS == (2 + curve * _LETTERS // len(chars)) % _LETTERS:
            return Piece(letter(curve), curve)
    if not braille:
        return Piece(letter(through[column % len(through)]), through[0])
    bits = 0
    for curve in through:
        bits |= ord(chars[curve]) - ord(_BLANK)
    return Piece(chr(ord(_BLANK) + bits), through[0])


def _axis(times: Sequence[float], columns: int, braille: bool) -> list[Row]:
    """The line below, with the powers of ten on it."""
    line, labels = list(("─" if braille else "-") * columns), [" "] * columns
    low, high = math.log10(times[0]), math.log10(times[-1])
    free = 0
    for power in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1):
        column = min(round((power - low) / max(high - low, 1e-9) * (columns - 1)), columns - 1)
        line[column] = "┴" if braille else "+"
        text = wording.race_time(10.0**power)
        start = min(max(column - len(text) // 2, 0), columns - len(text))
        if start >= free:
            labels[start : start + len(text)] = text
            free = start + len(text) + 2
    corner = "└" if braille else "+"
    return [(Piece(" " * _LEFT + corner + "".join(line)),), (Piece((" " * (_LEFT + 1) + "".join(labels)).rstrip()),)]
