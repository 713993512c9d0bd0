"""The confidence that one entrant is better: a paired exact sign-flip test over the seeds, corrected for the number of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ALPHA = 0.05

# The least ratio of times that counts: two copies of one program differ by a few per cent, from one process to the next.
LEAST_RATIO = 1.1
# The least lead in time that counts, in standard deviations between the seeds of one entrant, all of which run one program. On a machine
# with other work a step's time differs by more, and in bursts that hit several seeds of one entrant, which the test takes for independent.
# (For a median over 8 seeds two deviations are three standard errors.)
DEVIATIONS = 2.0
# The least difference of accuracy that counts: a step more or fewer makes a smaller one.
LEAST_ACCURACY = 0.01


def sign_flip(differences: Sequence[float]) -> float:
    """The two-sided p value of paired differences that are as likely to have either sign where neither side is better.

    It is the share of all 2^n ways to choose the signs whose sum is at least as far from zero as the one seen (R. A. Fisher, The Design of
    Experiments, 1935, section 21; E. J. G. Pitman, 1937). It is exact: sums of either half are combined by counting, so n may be 32.
    """
    nonzero = np.asarray(differences, np.float64)
    nonzero = nonzero[nonzero != 0]
    if not len(nonzero):
        return 1.0
    left, right = _sums(nonzero[: len(nonzero) // 2]), np.sort(_sums(nonzero[len(nonzero) // 2 :]))
    # Sums that differ by no more than rounding count as equal.
    reach = abs(nonzero.sum()) - 1e-9 * np.abs(nonzero).sum()
    above = len(right) - np.searchsorted(right, reach - left, side="left")
    below = np.searchsorted(right, -reach - left, side="right")
    return min(1.0, float(above.sum() + below.sum()) / 2.0 ** len(nonzero))


def _sums(values: np.ndarray) -> np.ndarray:
    """The sum for every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, corrected for their number (S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, pair in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[pair]))
        adjusted[pair] = least
    return adjusted


def smallest_p(seeds: int, pairs: int) -> float:
    """The smallest p value that the test can give: every seed favours the same entrant."""
    return min(1.0, pairs * 2.0 ** (1 - seeds))
