"""The elements that a trail still has to follow, and what has happened to them so far."""

from __future__ import annotations

from enum import IntEnum

from nandetect.nonfinite import Mask


class Use(IntEnum):
    """What happened to a value on its way to the symptom: only copied, selected or compared; only shifted by a sum; computed with."""

    MOVED = 0
    SHIFTED = 1
    COMPUTED = 2


Wanted = dict[Use, Mask]


def merge(wanted: Wanted, found: Wanted) -> None:
    """Add elements to those already wanted."""
    for use, mask in found.items():
        wanted[use] = wanted[use] | mask if use in wanted else mask
