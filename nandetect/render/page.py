"""A page: lines of styled spans, laid out once for a width. Every painter (terminal, HTML) paints the same page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len

Style = Literal["", "error", "headline", "gutter", "caret", "help", "before", "after", "dim"]

# Stands for a space at which no line may be broken: between a number and its unit, within an index.
HARD_SPACE = "\u00a0"


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text in one style."""

    text: str
    style: Style = ""


Line = tuple[Span, ...]


def joined(text: str) -> str:
    """The text as one unbreakable word."""
    return text.replace(" ", HARD_SPACE)


def plain_text(line: Line) -> str:
    """The line without its styles."""
    return "".join(span.text for span in line).rstrip()


def printable(text: str) -> str:
    """The text on one line, with what would move the cursor or start an escape replaced."""
    return "".join(char if char.isprintable() or char == HARD_SPACE else " " if char.isspace() else "\ufffd" for char in text)


def can_write(text: str, encoding: str) -> bool:
    """Whether a stream of that encoding takes the text."""
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def end_of(name: str, width: int) -> str:
    """The name in that many characters at most: a path is told apart by its end."""
    return name if len(name) <= width else "…" + name[1 - width :]


def wrap(text: str, width: int) -> list[str]:
    """The text broken at spaces into pieces of at most `width` cells; a longer word stands alone, whole."""
    pieces = [""]
    for word in re.findall(r"[^ ]+ *| +", printable(text)):
        if pieces[-1] and cell_len(pieces[-1] + word.rstrip(" ")) > width:
            pieces.append("")
        pieces[-1] += word
    return [piece.rstrip(" ").replace(HARD_SPACE, " ") for piece in pieces]


def hang(first: Sequence[Span], text: str, width: int, style: Style = "", *, after: Sequence[Span] | None = None) -> list[Line]:
    """`text` behind the spans `first`; what does not fit follows below, behind `after` (blank unless given)."""
    indent = sum(cell_len(span.text) for span in first)
    below = (Span(" " * indent),) if after is None else tuple(after)
    pieces = wrap(text, max(width - indent, 20))
    return [(*(first if number == 0 else below), Span(piece, style)) for number, piece in enumerate(pieces)]


def listing(parts: Iterable[str], most: int) -> str:
    """The parts with commas, and how many more there were."""
    parts = list(parts)
    shown = parts if len(parts) <= most + 1 else parts[:most]
    left = len(parts) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")
