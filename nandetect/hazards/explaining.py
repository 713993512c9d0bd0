"""What a hazard's two ways of writing give, run as they stand: the page behind a code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.hazards.hazard import Hazard, Inputs
from nandetect.hazards.running import run

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Both ways on the same inputs, as text: the value, and where the gradient is what fails, that of its sum in every input."""

    inputs: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A hazard with what its two ways of writing gave: where the first breaks, and, if there is such a place, where both are sound."""

    code: str
    name: str
    why: str
    before: str
    after: str
    fails: str
    dtype: str
    breaks: Trial
    ordinary: Trial | None


def explained(hazard: Hazard) -> Explanation:
    """Run both ways of a hazard. Imports JAX."""
    return Explanation(
        code=hazard.code,
        name=hazard.name,
        why=hazard.why,
        before=hazard.before,
        after=hazard.after,
        fails=hazard.fails,
        dtype=hazard.dtype,
        breaks=_tried(hazard, hazard.breaks_on),
        ordinary=_tried(hazard, hazard.ordinary) if hazard.ordinary else None,
    )


def _tried(hazard: Hazard, inputs: Inputs) -> Trial:
    before, after = (_told(hazard, results) for results in run(hazard, (hazard.before, hazard.after), inputs))
    return Trial(inputs=", ".join(f"{name} = {_text(value)}" for name, value in inputs.items()), before=before, after=after)


def _told(hazard: Hazard, results: list[np.ndarray]) -> str:
    value, *slopes = (_text(array.astype("float64").tolist()) for array in results)
    floating = [name for name, given in hazard.breaks_on.items() if "True" not in str(given) and "False" not in str(given)]
    return ", ".join([value, *(f"d/d{name} {slope}" for name, slope in zip(floating, slopes, strict=False))])


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value) if isinstance(value, bool) or not isinstance(value, int | float) else wording.short(value)
