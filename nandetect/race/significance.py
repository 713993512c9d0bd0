"""Who was better, and with what confidence: a paired exact sign-flip test over the seeds, corrected for the number of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ALPHA = 0.05

# The time of a step differs by a few per cent between two copies of one program, from one process to the next: that is no one's merit.
LEAST_RATIO = 1.1
# Deviations between the seeds of one entrant, all of which run one program, that a lead in time must be. On a machine with other work
# the time of a step differs by more, and in bursts that hit several seeds of one entrant, which the test takes for independent.
# (Of a median over 8 seeds two deviations are three standard errors.)
DEVIATIONS = 2.0
# A difference of accuracy that a step more or fewer makes is no one's merit either.
LEAST_ACCURACY = 0.01


def sign_flip(differences: Sequence[float]) -> float:
    """The two-sided p value of paired differences that are as likely to have either sign where neither side is better.

    The share of all 2^n ways to choose the signs whose sum is at least as far from zero as the one seen (R. A. Fisher, The Design of
    Experiments, 1935, section 21; E. J. G. Pitman, 1937). Exact: the sums of either half are combined by counting, so n may be 32.
    """
    seen = np.asarray(differences, np.float64)
    seen = seen[seen != 0]
    if not len(seen):
        return 1.0
    left, right = _sums(seen[: len(seen) // 2]), np.sort(_sums(seen[len(seen) // 2 :]))
    # Sums that differ by no more than rounding count as equal.
    reach = abs(seen.sum()) - 1e-9 * np.abs(seen).sum()
    above = len(right) - np.searchsorted(right, reach - left, side="left")
    below = np.searchsorted(right, -reach - left, side="right")
    return min(1.0, float(above.sum() + below.sum()) / 2.0 ** len(seen))


def _sums(values: np.ndarray) -> np.ndarray:
    """The sum for every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, each as it counts among the others (S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, pair in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[pair]))
        adjusted[pair] = least
    return adjusted


def smallest_p(seeds: int, pairs: int) -> float:
    """What the test can give at the best: every seed says the same."""
    return min(1.0, pairs * 2.0 ** (1 - seeds))
