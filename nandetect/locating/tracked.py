"""The elements that a trail still has to follow, and what has happened to them so far."""

from __future__ import annotations

from nandetect.nonfinite import Mask
from nandetect.primitives import Use

# Elements of one value that are to be followed, by what was done with them on their way to the symptom.
Wanted = dict[Use, Mask]
# The wanted elements of an equation's results, by the number of the result.
Asked = dict[int, Wanted]


def merge(wanted: Wanted, more: Wanted) -> None:
    """Add elements to those already wanted."""
    for use, mask in more.items():
        wanted[use] = wanted[use] | mask if use in wanted else mask
