"""What the equation that made a deadly element says of it: why it came to be, or from which of the operands it was handed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nandetect import wording
from nandetect.locating import terms
from nandetect.locating.made import Deadly, Made

# A result that is this much larger than every operand was made large here; a smaller one was handed on.
GROWTH = 4.0
# A difference that is this much smaller than what it is the difference of is what rounding left of it.
CANCELLED = 1e-3
# An addend that is this much smaller than the sum did not make it what it is.
SLIGHT = 0.1

NOTHING_SUMMED = "nothing is summed there"
MASKED = "the mask is False there"


@dataclass(frozen=True)
class Explained:
    """What an equation says (nothing, where it only handed the element on), and the operand to go on with, if any.

    `deadly` is what is wrong with that operand, where that is another thing. `instead` is said of this equation where the way back ends at
    an argument: of two equal operands neither is to blame. `others` are operands that are as deadly, of which one may say more.
    `rounded` are operands of which one is to be gone on with if rounding made it what it is.
    """

    reason: str = ""
    slot: int | None = None
    deadly: Deadly | None = None
    instead: str = ""
    others: tuple[int, ...] = ()
    rounded: tuple[int, ...] = ()


def explain(made: Made, deadly: Deadly) -> Explained:
    """What the equation that made a deadly element says of it."""
    if made.primitive.hands_on:
        slots = list(made.values)
        return Explained(slot=slots[0] if slots else None)
    if made.primitive.sums_windows:
        return Explained(f"adds up to {wording.short(made.value)}")
    if made.primitive.bounds:
        return _bounded(made)
    if made.primitive.casts:
        return _cast(made)
    if not made.values:
        return Explained(NOTHING_SUMMED if made.primitive.sums else f"gives {wording.short(made.value)}")
    return RULES[deadly](made)


def _bounded(made: Made) -> Explained:
    same = made.holding(lambda values: values == made.value)
    if not same:
        return Explained()
    if made.is_written(same[0]) and len(made.values) > 1:
        return Explained(f"bounded to {wording.short(made.value)}")
    return Explained(slot=same[0])


def _cast(made: Made) -> Explained:
    before = made.values[0][0]
    if made.value == 0 and before != 0:
        return Explained(f"{'is cut' if made.dtype[0] in 'iu' else 'underflows'} to 0 in {made.dtype}")
    if made.value == 0 and made.ins[0].dtype == bool:
        return Explained(MASKED)
    rounded = made.value != before and abs(made.value) == 1
    return Explained(f"rounds to {wording.short(made.value)} in {made.dtype}") if rounded else Explained(slot=0)


def _zero(made: Made) -> Explained:
    zeros = made.holding(lambda values: values == 0)
    if made.primitive.adds:
        return _cancelled(made, zeros)
    if made.primitive.sums:
        if made.name.startswith("scatter") and 2 not in made.values:
            return Explained(NOTHING_SUMMED)
        empty = [slot for slot, values in made.values.items() if not values.any()]
        if empty and not made.primitive.multiplies:
            return Explained(slot=empty[0], others=tuple(empty[1:])) if len(empty) == len(made.values) else Explained(terms.vanished(made))
        return Explained(slot=empty[0]) if empty else Explained(terms.vanished(made))
    infinite = made.holding(np.isinf)
    if infinite:
        return Explained("gives 0 of an inf", infinite[0])
    if made.name == "div" and 0 not in zeros:
        return Explained(f"underflows to 0 in {made.dtype}")
    if zeros and made.primitive.zero_at_zero:
        return Explained(slot=made.all_zero(zeros))
    if made.primitive.underflows:
        return Explained(f"underflows to 0 in {made.dtype}")
    if len(zeros) == len(made.values) and all(not values.any() for values in made.values.values()):
        return Explained(slot=made.all_zero(zeros))
    # The logarithm of 1, 1 - x² of it: that it is 1 may be what rounding made of it.
    ones = made.holding(lambda values: np.abs(values) == 1)
    if ones and len(made.eqn.invars) == 1 and made.values[0].size == 1:
        return Explained("gives 0", 0, Deadly.EDGE)
    return Explained("a pivot is 0, the matrix is singular" if made.name == "lu" else "gives 0")


def _cancelled(made: Made, zeros: list[int]) -> Explained:
    if all(not values.any() for values in made.values.values()):
        instead = "cancels to 0" if made.name == "sub" and not made.is_written(zeros[-1]) else ""
        return Explained(slot=zeros[0], instead=instead, others=() if instead else tuple(zeros[1:]))
    return Explained("cancels to 0", _beside_a_literal(made), Deadly.EDGE)


def _beside_a_literal(made: Made) -> int | None:
    """The operand to be followed of a difference: in `1 - p` it is p that was not meant to be 1, or more; of two variables neither."""
    given = [slot for slot in (0, 1) if made.is_written(slot)]
    return 1 - given[0] if given else None


def _negative(made: Made) -> Explained:
    negative = [slot for slot in made.holding(lambda values: values < 0) if not made.is_written(slot)]
    if made.primitive.sums:
        return Explained(terms.added_up(made, lowest=True))
    if not made.primitive.adds:
        return Explained(slot=negative[0]) if negative and made.is_product else Explained(f"gives {wording.short(made.value)}")
    sizes = sorted(np.abs(values).max() for values in made.values.values())
    if made.name == "add" and negative and sizes[0] < SLIGHT * abs(made.value):
        return Explained(slot=negative[0])
    if abs(made.value) >= CANCELLED * sizes[-1]:
        return Explained(f"gives {wording.short(made.value)}")
    return Explained(f"cancels to {wording.short(made.value)}", _beside_a_literal(made), Deadly.EDGE)


def _huge(made: Made) -> Explained:
    slot = made.largest()
    most = np.abs(made.values[slot]).max()
    many = made.primitive.sums and made.values[slot].size > 1
    if (many and len(made.values) > 1) or (many and abs(made.value) > GROWTH * most):
        return Explained(terms.added_up(made))
    if abs(made.value) <= GROWTH * most:
        return Explained(slot=slot)
    return Explained(f"grows to {wording.short(made.value)}")


def _edge(made: Made) -> Explained:
    zeros = made.holding(lambda values: values == 0)
    same = made.holding(lambda values: np.abs(values) == abs(made.value))
    if made.primitive.sums or (made.primitive.adds and not same):
        return Explained(f"{'gives' if made.name == 'sub' else 'adds up to'} {made.value:.8g}")
    if made.primitive.adds:
        return Explained(slot=same[0]) if zeros else Explained(f"rounds to {made.value:.8g} in {made.dtype}")
    if made.name == "div" and same and abs(made.value) == 1:
        return Explained(slot=0 if made.is_written(1) else 1)
    if zeros and not made.is_product:
        return Explained(f"gives {made.value:.8g}", zeros[0])
    if made.is_product:
        return _factor(made, same)
    if abs(made.value) != 1:
        return Explained(f"gives {made.value:.8g}")
    return Explained(slot=same[0]) if same else Explained(f"rounds to {made.value:.8g} in {made.dtype}")


def _factor(made: Made, same: list[int]) -> Explained:
    """Of a product at an edge the factor that was not meant to be what it is."""
    given = [slot for slot in made.values if made.is_written(slot)]
    if made.name == "mul" and len(given) == 1 and any(np.abs(made.values[slot]) == 1 for slot in made.values):
        # 1 times a number that is written, or a number times a 1 that is.
        return Explained(slot=1 - given[0])
    above = made.holding(lambda values: np.abs(values) > 1)
    if abs(made.value) > 1 and above and not made.is_written(above[-1]):
        # Of factors that are to be at most 1 the one that is more made the product more.
        return Explained(slot=above[0])
    return Explained(f"gives {made.value:.8g}", rounded=tuple(same))


def _infinite(made: Made) -> Explained:
    return Explained(slot=made.holding(np.isinf)[0])


RULES: dict[Deadly, Callable[[Made], Explained]] = {
    Deadly.ZERO: _zero,
    Deadly.NEGATIVE: _negative,
    Deadly.HUGE: _huge,
    Deadly.EDGE: _edge,
    Deadly.INFINITE: _infinite,
}
