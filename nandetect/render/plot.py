"""Curves and maps as rows of text. plotille's canvas draws the lines; what stands beside them is ours."""

from __future__ import annotations

from collections.abc import Sequence

_BLANK = "\u2800"
_SHADES = "░▒▓█"
_ASCII_SHADES = ".:+#"
LABEL = 8


def curve(
    low: Sequence[float | None], high: Sequence[float | None], labels: tuple[str, str], height: int, braille: bool = True
) -> list[str]:
    """A curve by the extremes of each of its columns of dots, two to a character; `labels` are what the top and the bottom stand for."""
    from plotille import Canvas

    width = (len(low) + 1) // 2
    canvas = Canvas(width, height, 0, 0, 2 * width, 4 * height)
    before: tuple[int, int] | None = None
    for x, (least, most) in enumerate(zip(low, high, strict=True)):
        if least is None or most is None:
            continue
        below, above = (round(share * (4 * height - 1)) for share in (least, most))
        middle = (below + above) // 2
        canvas.line(x, below, x, above)
        if before is not None:
            canvas.line(*before, x, middle)
        before = (x, middle)
    rows = canvas.plot().replace(_BLANK, " ").split("\n")
    if not braille:
        rows = ["".join("*" if char != " " else " " for char in row) for row in rows]
    bar = "│" if braille else "|"
    ends = {0: labels[0], height - 1: labels[1]}
    return [f"{ends.get(at, ''):>{LABEL}} {bar}{row}".rstrip() for at, row in enumerate(rows)]


def shade(level: float | None, braille: bool = True) -> str:
    """The character of a level from 0 to 1; of what is 0 (below 0), not finite (below -1), and of nothing."""
    if level is None:
        return " "
    if level < 0:
        return "!" if level < -1 else "0"
    shades = _SHADES if braille else _ASCII_SHADES
    return shades[rung(level, len(shades))]


def rung(level: float, count: int) -> int:
    """Which of so many equal parts a level from 0 to 1 lies in, counted from 0."""
    return min(int(level * count), count - 1)
