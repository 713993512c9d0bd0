"""A heat map's rows: the larger a level, the darker its character and the hotter its colour. What two maps differ in is their palette.

A level is a share of the way from the smallest value to the largest, `ZERO` for a value that has no place on that way (it is 0, or below
the smallest), `NOT_FINITE`, or None where nothing was measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

ZERO, NOT_FINITE = -1.0, -2.0
SHADES = "░▒▓█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A character and its colour, as rich names it."""

    char: str
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colours from cold to hot, the four shades where the encoding has none, and the cells of what has no share."""

    colours: tuple[str, ...]
    plain_shades: str
    zero: Cell
    not_finite: Cell
    nothing: Cell

    def shades(self, unicode: bool) -> str:
        """The characters from the smallest level to the largest."""
        return SHADES if unicode else self.plain_shades

    def cell(self, level: float | None, unicode: bool) -> Cell:
        """What a level is drawn as."""
        if level is None:
            return self.nothing
        if level < 0:
            return self.not_finite if level == NOT_FINITE else self.zero
        shades = self.shades(unicode)
        return Cell(char=shades[_rung(level, len(shades))], colour=self.colours[_rung(level, len(self.colours))])


def append(line: Text, levels: Sequence[float | None], palette: Palette, unicode: bool) -> None:
    """Draw a row of levels behind what the line has."""
    cells = [palette.cell(level, unicode) for level in levels]
    for colour, alike in itertools.groupby(cells, lambda cell: cell.colour):
        line.append("".join(cell.char for cell in alike), colour)


def _rung(level: float, count: int) -> int:
    """Which of so many equal parts a level from 0 to 1 lies in, counted from 0."""
    return min(int(level * count), count - 1)
