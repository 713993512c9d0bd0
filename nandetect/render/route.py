"""The way from the origin to the symptom, in the user's lines, short enough to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nandetect.records import Event
from nandetect.render.page import joined
from nandetect.render.words import place

_MOST = 7
_LONGEST_CYCLE = 6
ARROW = " -> "

Group = tuple[tuple[str, ...], int]


class _Step(NamedTuple):
    name: str
    line: str
    turned: str

    def __str__(self) -> str:
        line = f" ({self.line})" if self.line else ""
        return joined(f"{self.name}{line}{f' = {self.turned}' if self.turned else ''}")


def route(chain: Sequence[Event]) -> str:
    """`div (41) -> mul (41) -> dot_general (27)`; repeats are counted, and a long way is cut to one step a line, then to its two ends."""
    steps = _steps(chain)
    shown = _counted(steps)
    if len(shown) > _MOST:
        shown = _counted([step for before, step in zip([None, *steps], steps, strict=False) if _tells(step, before)])
    if len(shown) > _MOST:
        left = len(shown) - _MOST + 1
        shown = [*shown[: _MOST // 2], joined(f"... {left} more ..."), *shown[-(_MOST - _MOST // 2 - 1) :]]
    return ARROW.join(shown)


def _steps(chain: Sequence[Event]) -> list[_Step]:
    """Each event's name, its line (the file only where it is another than the one before), and its value where that changed."""
    steps, near, value = [], chain[0].source if chain else None, chain[0].value if chain else ""
    for event in chain:
        steps.append(_Step(event.argument or event.primitive, place(event.source, near), "" if event.value == value else event.value))
        near, value = event.source or near, event.value
    return steps


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


def _tells(step: _Step, before: _Step | None) -> bool:
    """Whether a step tells something new: another line than the step before, or another value."""
    return before is None or bool(step.turned) or not step.line or step.line != before.line


def _counted(steps: Sequence[_Step]) -> list[str]:
    return [_group(*group) for group in collapse([str(step) for step in steps])]


def _group(steps: tuple[str, ...], times: int) -> str:
    text = ARROW.join(steps)
    if times == 1:
        return text
    return joined(f"{text} x {times}") if len(steps) == 1 else f"({text}) x {times}"
