"""Whether two functions are the same, or one a multiple of the other, by their exact values where both are well conditioned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nandetect.compare.oracle import Oracle, eps
from nandetect.compare.ordinary import Args, Bases
from nandetect.compare.parameters import Scene
from nandetect.compare.results import Sameness

POINTS = 6
# Roundings of the type by which equal functions may differ in exact values: a guard such as `+ 1e-12` does not make another function.
ROUNDING = 4.0


def points(scene: Scene) -> list[Args]:
    """Inputs of about 1, every other one positive, for functions that want positive numbers."""
    samples = [Bases(scene, 100 + seed) for seed in range(POINTS)]
    return [bases.beside(np.abs(bases.swept) + 0.25) if seed % 2 else bases.ordinary() for seed, bases in enumerate(samples)]


def sameness(first: Oracle, second: Oracle, inputs: Sequence[Sequence[np.ndarray]]) -> Sameness:
    """What the second function is: the first, the first times a factor, the first plus an offset, or another."""
    pairs = [(first.own(args).value.exact.balls.item(), second.own(args).value.exact.balls.item()) for args in inputs]
    pairs = [(a, b) for a, b in pairs if a.is_finite() and b.is_finite()]
    if not pairs:
        return Sameness(relation="unknown")
    tolerance = ROUNDING * eps(first.dtype)
    apart = max(float(abs(a - b)) / max(abs(float(a)), 1.0) for a, b in pairs)
    if apart <= tolerance:
        return Sameness(relation="same", difference=apart, points=len(pairs))
    if len(pairs) < 2:
        return Sameness(relation="unknown", points=len(pairs))
    ratios = [float(b / a) for a, b in pairs if abs(a) > tolerance]
    if len(ratios) > 1 and max(ratios) - min(ratios) <= tolerance * abs(ratios[0]) and ratios[0]:
        return Sameness(relation="factor", amount=_round(ratios[0], tolerance), points=len(pairs))
    offsets = [float(b - a) for a, b in pairs]
    if max(offsets) - min(offsets) <= tolerance * max(1.0, *(abs(float(a)) for a, _ in pairs)):
        return Sameness(relation="offset", amount=_round(offsets[0], tolerance), points=len(pairs))
    return Sameness(relation="different", difference=apart, points=len(pairs))


def _round(x: float, tolerance: float) -> float:
    """The number with the fewest digits that equals x within the tolerance."""
    for digits in range(1, 17):
        short = float(f"{x:.{digits}g}")
        if abs(short - x) <= tolerance * max(abs(x), 1e-300):
            return short
    return x
