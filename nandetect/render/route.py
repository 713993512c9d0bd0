"""The way from the origin to the symptom, in the user's lines, short enough to read."""

from __future__ import annotations

from collections.abc import Sequence

from nandetect.records import Event
from nandetect.render.page import joined
from nandetect.render.words import place

_MOST = 7
_LONGEST_CYCLE = 6

ARROW = " -> "

Group = tuple[tuple[str, ...], int]


def route(chain: Sequence[Event]) -> str:
    """`div (41) -> mul (41) -> dot_general (27)`; repeats are counted, a long way keeps the first step on each line and its two ends."""
    origin = chain[0].source if chain else None
    steps = [(event.argument or event.primitive, place(event.source, origin)) for event in chain]
    shown = _counted(steps)
    if len(shown) > _MOST:
        shown = _counted([step for number, step in enumerate(steps) if number == 0 or step[1] != steps[number - 1][1] or not step[1]])
    if len(shown) > _MOST:
        left = len(shown) - _MOST + 1
        shown = [*shown[: _MOST // 2], joined(f"... {left} more ..."), *shown[-(_MOST - _MOST // 2 - 1) :]]
    return ARROW.join(shown)


def collapse(steps: Sequence[str]) -> list[Group]:
    """Cycles run together: `a b a b c` is `(a b) x 2, c`."""
    groups: list[Group] = []
    position = 0
    while position < len(steps):
        length, times = _cycle(steps, position)
        groups.append((tuple(steps[position : position + length]), times))
        position += length * times
    return groups


def _cycle(steps: Sequence[str], position: int) -> tuple[int, int]:
    """Length and count of the cycle at a position that covers most steps; (1, 1) where nothing repeats."""
    best = (1, 1)
    for length in range(1, _LONGEST_CYCLE + 1):
        cycle, times = steps[position : position + length], 1
        while len(cycle) == length and steps[position + times * length : position + (times + 1) * length] == cycle:
            times += 1
        if times > 1 and length * times > best[0] * best[1]:
            best = (length, times)
    return best


def _counted(steps: Sequence[tuple[str, str]]) -> list[str]:
    named = [joined(f"{primitive} ({where})") if where else joined(primitive) for primitive, where in steps]
    return [_group(*group) for group in collapse(named)]


def _group(steps: tuple[str, ...], times: int) -> str:
    text = ARROW.join(steps)
    if times == 1:
        return text
    return joined(f"{text} x {times}") if len(steps) == 1 else f"({text}) x {times}"
