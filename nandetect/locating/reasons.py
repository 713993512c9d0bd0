"""Why an equation gave a non-finite value, in one short phrase, from the operand values at the bad element."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nandetect.primitives import Primitive
from nandetect.primitives.edges import is_number


def reason(primitive: Primitive, values: Sequence[object], value: str, given_inf: bool = False) -> str:
    """The phrase for a primitive that made `value` ("nan", "inf", "-inf") from these operand values at the element (None: not known).

    `given_inf` says that an operand held inf already and no nan, so that what was born is a nan from it.
    """
    if primitive.whole:
        return "inf minus inf, or zero times inf, in a sum" if given_inf and value == "nan" else primitive.whole
    if primitive.casts:
        is_written = any(isinstance(item, float) and not math.isfinite(item) for item in values)
        return "written there as a literal" if is_written else "too large for the narrower type"
    if values and all(item is not None for item in values):
        if primitive.edge and len(values) == primitive.takes:
            return primitive.edge(values)
        if value != "nan" and all(is_number(item) and math.isfinite(item) for item in values):
            return f"overflow in {primitive.name}"
        if len(values) == 1 and values[0] == 0:
            return f"{primitive.name} of zero"
    return f"overflow in {primitive.name}" if value != "nan" else f"{primitive.name} is not defined there"
