"""One kernel's scale against every scheme that it may rightly have; where none fits, which mistake made it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nandetect.audit.mistakes import FOR_RELU, MISTAKES, Mistake
from nandetect.audit.schemes import ANY, GLOROT, HE, LECUN, Fans, Scheme, Surroundings, legitimate
from nandetect.audit.weight_statistics import FEWEST, WeightStatistics

# Standard errors and the ratio of variances that a wrong scale is off by, both: the ratio alone is passed by chance in a small kernel, the
# errors alone by a tiny deviation in a huge one. None of 1,615 correct kernels was called wrong (benchmarks/init_audit.py).
ERRORS = 4.0
RATIO = 1.25
# The ratio of variances within which a kernel has a scheme that is exact (see `Scheme`).
EXACT = 1.05
_RECTIFIED = ("relu", "leaky_relu")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleVerdict:
    """`fits` is the scheme that a kernel has, `wants` the one that it should have, `causes` the mistakes that would give its scale, the
    likeliest first. `fans` are those by which it was judged."""

    fans: Fans
    wants: Scheme
    fits: Scheme | None = None
    causes: tuple[Mistake, ...] = ()

    @property
    def is_off(self) -> bool:
        return self.fits is None

    @property
    def wanted(self) -> float:
        """The standard deviation that the kernel should have."""
        return math.sqrt(self.wants.variance(self.fans))


class _Suspect(NamedTuple):
    """A mistake that may have made a kernel's scale, with the fans for which it would; the lower its `unlikeliness`, the likelier it is."""

    unlikeliness: tuple[int, float]
    fans: Fans
    mistake: Mistake

    @property
    def variance(self) -> float:
        return self.mistake.variance(self.fans)


def judge(statistics: WeightStatistics, fans: Sequence[Fans], around: Surroundings) -> ScaleVerdict | None:
    """The verdict on a kernel that has one of `fans`; None where it has too few weights to say anything.

    A scheme fits where the second moment is within 4 standard errors or a factor of 1.25 of its variance, in a form that it is drawn in.
    """
    if statistics.count < FEWEST or not statistics.finite or statistics.second == 0:
        return None
    fitting = [(scheme, known) for known in fans for scheme in legitimate(around, known) if fits(statistics, scheme, known)]
    suspects = sorted(_suspects(statistics, fans, around), key=lambda suspect: suspect.unlikeliness)
    if fitting:
        scheme, chosen = min(fitting, key=lambda pair: (pair[0].tolerated, _distance(statistics, pair[0].variance(pair[1]))))
        sharper = [suspect for suspect in suspects if _is_sharper(statistics, suspect.variance, scheme.variance(chosen))]
        if not sharper:
            return _fitting(scheme, chosen, suspects)
        suspects = sharper
    chosen = suspects[0].fans if suspects else fans[0]
    causes = [suspect.mistake for suspect in suspects if suspect.fans == chosen]
    return ScaleVerdict(fans=chosen, wants=_wanted(causes[0] if causes else None, around), causes=_once(causes))


def _fitting(scheme: Scheme, fans: Fans, suspects: Sequence[_Suspect]) -> ScaleVerdict:
    """The verdict on a kernel that has a scheme; a tolerated one may have been a mistake, the one of the same variance first."""
    if not scheme.tolerated:
        return ScaleVerdict(fans=fans, wants=scheme, fits=scheme)
    causes = [suspect.mistake for suspect in suspects if suspect.fans == fans]
    causes.sort(key=lambda mistake: mistake.variance(fans) != scheme.variance(fans))
    return ScaleVerdict(fans=fans, wants=HE, fits=scheme, causes=_once(causes))


def _wanted(cause: Mistake | None, around: Surroundings) -> Scheme:
    """The scheme that was meant: the one that `cause` is a mistake for, unless what follows the kernel says more."""
    if around.follows in _RECTIFIED:
        return HE
    if cause is None or cause.has_no_fans:
        return LECUN if around.follows in ("tanh", "sigmoid", "selu") else HE
    return {"He": HE, "LeCun": LECUN, "Glorot": GLOROT}[cause.wants]


def fits(statistics: WeightStatistics, scheme: Scheme, fans: Fans) -> bool:
    """Whether the weights could have been drawn by a scheme."""
    if (statistics.forms and not statistics.forms & scheme.forms) or (not statistics.forms and scheme.forms != ANY):
        return False
    variance = scheme.variance(fans)
    if _distance(statistics, variance) <= math.log(EXACT if scheme.exact else RATIO):
        return True
    return abs(statistics.deviates(variance)) <= ERRORS and not _is_ruled_out(statistics, variance)


def _is_ruled_out(statistics: WeightStatistics, variance: float) -> bool:
    """Whether the end of the distribution shows another variance, whatever the mean of squares allows."""
    return statistics.resolution > 0 and _distance(statistics, variance) > max(6 * statistics.resolution, math.log(EXACT))


def _is_sharper(statistics: WeightStatistics, mistake: float, scheme: float) -> bool:
    """Whether the weights have the variance of a mistake, and not that of a scheme close to it."""
    error = statistics.resolution or math.sqrt(max(statistics.kurtosis - 1, 0.5) / statistics.count)
    far = 6 * error if statistics.resolution else max(6 * error, math.log(1.1))
    return _distance(statistics, mistake) <= 3 * error and _distance(statistics, scheme) > far


def _distance(statistics: WeightStatistics, variance: float) -> float:
    """The logarithm of the ratio of variances, by the sharper measure of the weights' own."""
    return abs(math.log(statistics.sharp / variance))


def _suspects(statistics: WeightStatistics, fans: Sequence[Fans], around: Surroundings) -> Iterator[_Suspect]:
    """The mistakes whose variance is within 4 standard errors, for each of the fans."""
    for known in fans:
        for mistake in (*FOR_RELU, *MISTAKES) if around.follows in _RECTIFIED else MISTAKES:
            if not mistake.applies(known) or (statistics.forms and not statistics.forms & mistake.forms):
                continue
            variance = mistake.variance(known)
            errors = abs(statistics.deviates(variance))
            if errors <= ERRORS and _distance(statistics, variance) <= math.log(RATIO) * 2:
                yield _Suspect((mistake.rank + int(errors > 2.5), errors), known, mistake)


def _once(causes: Sequence[Mistake]) -> tuple[Mistake, ...]:
    """Each cause once, and none that another one's words hold: He's and LeCun's scale may be missed by one mistake."""
    first: list[Mistake] = []
    for mistake in causes:
        if not any(mistake.cause in other.cause for other in first):
            first.append(mistake)
    return tuple(first)


def agreed(verdicts: Sequence[ScaleVerdict | None]) -> list[ScaleVerdict | None]:
    """The verdicts on the kernels of one model, where one mistake drew several: each keeps the causes that explain the most kernels.

    A cause that only one kernel allows gives way to one that two or more share.
    """
    shared = Counter(cause for verdict in verdicts if verdict for cause in {mistake.cause for mistake in verdict.causes})

    def settled(verdict: ScaleVerdict | None) -> ScaleVerdict | None:
        if verdict is None or not verdict.causes:
            return verdict
        most = max(shared[mistake.cause] for mistake in verdict.causes)
        if most < 2:
            return verdict
        return replace(verdict, causes=tuple(mistake for mistake in verdict.causes if shared[mistake.cause] == most))

    return [settled(verdict) for verdict in verdicts]
