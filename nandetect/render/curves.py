"""Curves as text: braille dots, or letters where the encoding has no braille. Times on a logarithmic axis, shares from 0 to 100 %."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nandetect import wording
from nandetect.render import page

HEIGHT = 12
_LEFT = 6
# Every so many columns a curve shows its letter, so that it can be told from the others without colour.
_LETTERS = 14
_BRAILLE = 0x2800
# The bit of each dot of a braille character, by column and by row from the top.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


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
    return page.can_write(chr(_BRAILLE), encoding)


def picture(times: Sequence[float], curves: Sequence[Sequence[float | None]], width: int, braille: bool = True) -> list[Row]:
    """The curves over `times` (which grow by a constant factor), each a share for every time or None; `width` characters wide in all."""
    columns = max(width - _LEFT - 1, 10)
    cells = [_cells(curve, columns) for curve in curves]
    rows: list[Row] = []
    for row in range(HEIGHT):
        label = {0: "100%", (HEIGHT - 1) // 2: " 50%", HEIGHT - 1: "  0%"}.get(row, "")
        pieces = [_cell(cells, row, column, braille) for column in range(columns)]
        rows.append((Piece(f"{label:>{_LEFT - 1}} {'│' if braille else '|'}"), *pieces))
    return [*rows, *_axis(times, columns, braille)]


def _cells(curve: Sequence[float | None], columns: int) -> dict[tuple[int, int], int]:
    """The dots of a curve by row and column of characters; where it jumps, the dots between are drawn."""
    cells: dict[tuple[int, int], int] = {}
    before: int | None = None
    for x in range(2 * columns):
        value = curve[round(x * (len(curve) - 1) / (2 * columns - 1))]
        if value is None:
            continue
        y = round((1 - min(max(value, 0.0), 1.0)) * (4 * HEIGHT - 1))
        for dot in range(min(y, before if before is not None else y), max(y, before if before is not None else y) + 1):
            at = (dot // 4, x // 2)
            cells[at] = cells.get(at, 0) | _DOTS[x % 2][dot % 4]
        before = y
    return cells


def _cell(cells: Sequence[dict[tuple[int, int], int]], row: int, column: int, braille: bool) -> Piece:
    """The first curve that goes through is the one whose colour, and now and then whose letter, the character has."""
    here = [curve for curve, of_curve in enumerate(cells) if (row, column) in of_curve]
    if not here:
        return Piece(" ")
    for curve in here:
        if column % _LETTERS == (2 + curve * _LETTERS // len(cells)) % _LETTERS:
            return Piece(letter(curve), curve)
    if not braille:
        return Piece(letter(here[column % len(here)]), here[0])
    bits = 0
    for curve in here:
        bits |= cells[curve][row, column]
    return Piece(chr(_BRAILLE | bits), here[0])


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
