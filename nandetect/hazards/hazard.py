"""What a hazard is: a way of writing something that breaks, and a way that does not. No JAX here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

# The value of a name in a hazard's expressions: a number, a truth value, a vector or a matrix.
Input: TypeAlias = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
Inputs: TypeAlias = Mapping[str, Input]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazard:
    """A way of writing something that goes non-finite, and the way that does not.

    `before` and `after` are Python expressions over the names of `breaks_on`, on which `before` is non-finite in its value or its gradient
    and `after` is finite. `ordinary` are inputs on which both are the same number; empty where no finite input is ordinary. Where a hazard
    is found in a program, and what stands in for it there, is told in `nandetect.fixing`.
    """

    code: str
    name: str
    why: str
    before: str
    after: str
    breaks_on: Inputs
    ordinary: Inputs = field(default_factory=dict)
    fails: Literal["value", "gradient"] = "value"
    dtype: str = "float32"
