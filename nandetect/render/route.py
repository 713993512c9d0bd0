"""The way from the origin to the symptom, in the user's lines, short enough to read."""

from __future__ import annotations

from collections.abc import Sequence

from nandetect.records import Event
from nandetect.render.page import joined
from nandetect.render.words import place

_MOST = 7
_LONGEST_CYCLE = 6

Group = tuple[tuple[str, ...], int]


def route(chain: Sequence[Event], symptom: str = "") -> str:
    """`div (41) -> mul (41) -> dot_general (27) -> grads['w3']`; repeats are counted, the middle of a long way is left out."""
    origin = chain[0].source if chain else None
    steps = _one_a_line([(event.primitive, place(event.source, origin)) for event in chain])
    shown = [_group(group) for group in collapse(steps)]
    if len(shown) > _MOST:
        left = len(shown) - _MOST + 1
        shown = [*shown[: _MOST // 2], joined(f"... {left} more ..."), *shown[-(_MOST - _MOST // 2 - 1) :]]
    return " -> ".join([*shown, joined(symptom)] if symptom else shown)


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


def _group(group: Group) -> str:
    steps, times = group
    text = " -> ".join(steps)
    if times == 1:
        return text
    return f"{text} x {times}" if len(steps) == 1 else f"({text}) x {times}"


def _one_a_line(steps: Sequence[tuple[str, str]]) -> list[str]:
    """Each step as text; on a way of many steps, only the first equation of each run on one line."""
    kept = list(steps)
    if len(kept) > _MOST:
        kept = [step for number, step in enumerate(kept) if number == 0 or step[1] != kept[number - 1][1] or not step[1]]
    return [joined(f"{primitive} ({where})") if where else primitive for primitive, where in kept]
