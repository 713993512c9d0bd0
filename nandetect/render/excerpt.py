"""The user's source lines with carets under the exact sub-expression."""

from __future__ import annotations

import linecache
from dataclasses import dataclass

from rich.cells import cell_len

from nandetect.records import Frame
from nandetect.render.page import Line, Span, hang, printable

_TAB = 4
# More lines than this are shown as the first two and the last.
_MOST = 3


@dataclass(frozen=True, slots=True)
class _Row:
    """One source line ready for the page: what is shown, and from which cell to which it is underlined (none when equal)."""

    number: int
    text: str
    start: int = 0
    end: int = 0


def gutter_width(frame: Frame) -> int:
    """Cells that the largest line number shown takes."""
    return len(str(frame.end_line or frame.line))


def excerpt(frame: Frame, label: str, width: int) -> list[Line]:
    """The lines of a frame between two gutters, the expression underlined and `label` behind the last caret; empty without source."""
    gutter = gutter_width(frame)
    rows = [_fit(row, width - gutter - 3) for row in _rows(frame)]
    if not rows:
        return []
    page = [_bar(gutter)]
    for row in rows if len(rows) <= _MOST else (*rows[:2], rows[-1]):
        if len(rows) > _MOST and row is rows[-1]:
            page.append((Span("." * max(gutter, 3), "gutter"),))
        page.append((Span(f"{row.number:>{gutter}} | ", "gutter"), Span(row.text)))
        if row.start < row.end:
            last = row is rows[-1]
            page += _underline(row, gutter, label if last else "", width)
    return [*page, _bar(gutter)]


def _bar(gutter: int) -> Line:
    return (Span(" " * gutter + " |", "gutter"),)


def _underline(row: _Row, gutter: int, label: str, width: int) -> list[Line]:
    bar = Span(" " * gutter + " | ", "gutter")
    carets = Span(" " * row.start + "^" * (row.end - row.start), "caret")
    room = width - gutter - 3 - row.end - 1
    if not label or cell_len(label) <= room:
        return [(bar, carets, Span(f" {label}" if label else "", "caret"))]
    # The label goes below the carets, as far right as leaves it half the page.
    indent = Span(" " * max(0, min(row.start, width - gutter - 3 - min(cell_len(label), width // 2))))
    return [(bar, carets), *hang((bar, indent), label, width, "caret", after=(bar, indent))]


def _rows(frame: Frame) -> list[_Row]:
    """The lines of a frame; without columns, only the first, not underlined."""
    first = frame.code or linecache.getline(frame.file, frame.line).rstrip("\n")
    if not first.strip():
        return []
    if frame.column is None or frame.end_column is None:
        return [_Row(frame.line, _expand(first.rstrip()))]
    last = frame.end_line or frame.line
    lines = [first, *(linecache.getline(frame.file, number).rstrip("\n") for number in range(frame.line + 1, last + 1))]
    if not lines[-1].strip():
        # Lines after the first are missing where the file is gone: the first, which the frame keeps, is underlined to its end.
        lines, last = [first], frame.line
    ends = [None] * (len(lines) - 1) + [frame.end_column if last == (frame.end_line or frame.line) else None]
    columns = [frame.column] + [0] * (len(lines) - 1)
    rows = [_row(frame.line + number, *parts) for number, parts in enumerate(zip(lines, columns, ends, strict=True))]
    return [row for row in rows if row.text]


def _row(number: int, line: str, column: int, end_column: int | None) -> _Row:
    """A line underlined from `column` to `end_column`, to the end of its code where that is None."""
    # Python counts columns in UTF-8 bytes; the page counts cells.
    raw = line.encode()
    inside = raw[column:end_column].decode(errors="replace")
    lead = raw[:column].decode(errors="replace") + inside[: len(inside) - len(inside.lstrip())]
    through = raw[: len(raw) if end_column is None else end_column].decode(errors="replace").rstrip()
    if end_column is None:
        through = _without_comment(through)
    return _Row(number, _expand(line.rstrip()), cell_len(_expand(lead)), max(cell_len(_expand(through)), cell_len(_expand(lead)) + 1))


def _without_comment(line: str) -> str:
    """The line up to a comment behind code, where that is plain to see."""
    code, mark, _ = line.rpartition("  #")
    return code.rstrip() if mark and code.strip() else line


def _expand(line: str) -> str:
    return printable(line.expandtabs(_TAB))


def _fit(row: _Row, room: int) -> _Row:
    """A line that fits the room: a window around what is underlined, with an ellipsis where something was cut."""
    if cell_len(row.text) <= room:
        return row
    room = max(room, 20)
    # Room before the underlined part: a third where all of that fits, else four cells, and its start is shown.
    lead = room // 3 if row.end - row.start <= room // 2 else 4
    begin = max(row.start - lead, 0) if row.end + 1 > room else 0
    text, cut_left = _drop(row.text, begin)
    start, end = row.start - cut_left, row.end - cut_left
    if begin:
        text, start, end = "…" + text, start + 1, end + 1
    if cell_len(text) > room:
        text = _take(text, room - 1) + "…"
        end = min(end, cell_len(text))
    return _Row(row.number, text, start, end)


def _drop(text: str, cells: int) -> tuple[str, int]:
    """The text without its first `cells` cells, and how many that were (a wide character goes as a whole)."""
    gone = 0
    for position, char in enumerate(text):
        if gone >= cells:
            return text[position:], gone
        gone += cell_len(char)
    return "", gone


def _take(text: str, cells: int) -> str:
    """As many first characters as fit in `cells`."""
    taken = 0
    for position, char in enumerate(text):
        taken += cell_len(char)
        if taken > cells:
            return text[:position]
    return text
