"""What a sum says of its terms: how many there are, which is the largest, whether they cancel."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from nandetect import nonfinite, wording
from nandetect.locating.made import Made

# So many times its largest term a sum is made what it is by their number.
MANY = 4.0


@dataclass(frozen=True)
class Terms:
    """What one element was summed from, in float64; where those are products, what each is the product of."""

    values: np.ndarray
    factors: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def noun(self) -> str:
        """What they are called."""
        return "term" if self.factors is None else "product"

    def written(self, number: int) -> str:
        """One of them as it would be typed: `1200 * 0.16`."""
        return " * ".join(wording.short(factor[number]) for factor in self.factors or (self.values,))


def terms(made: Made) -> Terms | None:
    """The terms of a sum; None for one that is no plain sum of real numbers."""
    if not made.primitive.sums or not made.values or any(np.iscomplexobj(nonfinite.host(x)) for x in made.ins):
        return None
    if not made.primitive.multiplies:
        return Terms(np.concatenate(list(made.values.values())))
    ((left, right), _) = made.eqn.params["dimension_numbers"]
    # The elements of both operands lie in the order of their own axes: they pair off where the contracted axes are in one order.
    in_order = [right[place] for place in np.argsort(left)] == sorted(right)
    if not in_order or set(made.values) != {0, 1} or made.values[0].size != made.values[1].size:
        return None
    return Terms(made.values[0] * made.values[1], (made.values[0], made.values[1]))


def vanished(made: Made) -> str:
    """Why a sum of what is not all 0 is 0."""
    known = terms(made)
    if known is None:
        return "the terms cancel or underflow to 0"
    count = wording.counted(known.values.size, known.noun)
    if not known.values.any():
        return f"each of {count} is 0"
    largest = int(np.argmax(np.abs(known.values)))
    if np.abs(known.values[largest]) < float(jnp.finfo(made.dtype).tiny):
        return f"each of {count} underflows to 0 in {made.dtype}"
    return f"{count} cancel to 0, the largest is {known.written(largest)}"


def added_up(made: Made, lowest: bool = False) -> str:
    """What terms add up to, and the one that says most."""
    known = terms(made)
    if known is None or known.values.size < 2:
        return f"adds up to {wording.short(made.value)}"
    told = int(np.argmin(known.values) if lowest else np.argmax(np.abs(known.values)))
    count = wording.counted(known.values.size, known.noun)
    return f"{count} add up to {wording.short(made.value)}, the {'lowest' if lowest else 'largest'} is {known.written(told)}"


def too_many(made: Made) -> str:
    """That a sum overflowed by the number of its terms; empty where a few of them would have done it."""
    known = terms(made)
    if known is None or known.values.size < 2 or not np.isfinite(known.values).all():
        return ""
    largest, most = float(np.abs(known.values).max()), float(jnp.finfo(made.dtype).max)
    exact = float(known.values.sum())
    if largest * MANY > most or not abs(exact) > most:
        return ""
    count = wording.counted(known.values.size, known.noun)
    return f"{count} of up to {wording.short(largest)} add up to {wording.short(exact, 6)}, {made.dtype} ends at {wording.short(most, 6)}"
