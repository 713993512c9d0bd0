"""One kernel's scale against every scheme that it may rightly have; where none fits, which mistake made it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nandetect.audit.mistakes import FOR_RELU, MISTAKES, Mistake
from nandetect.audit.schemes import ANY, GLOROT, HE, LECUN, Fans, Scheme, Surroundings, legitimate
from nandetect.audit.spread import FEWEST, Spread

# Standard errors, and the ratio of variances, that both must be passed before a scale is called wrong: so that neither chance in a small
# kernel nor a tiny real deviation in a huge one is. Of 1,615 correct kernels none was (DETECTORS 5.1; benchmarks/init_audit.py).
ERRORS = 4.0
RATIO = 1.25
# As near must a kernel come to a scheme that has an exact scale or is rare.
EXACT = 1.05
_RECTIFIED = ("relu", "leaky_relu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`fits` is the scheme that a kernel has, `wants` the one that it should have, `causes` the mistakes that would make what is there, the
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
        """The standard deviation that it should have."""
        return math.sqrt(self.wants.variance(self.fans))


def judge(spread: Spread, fans: Sequence[Fans], around: Surroundings) -> Verdict | None:
    """The verdict on a kernel whose fans are one of `fans`; None where it has too few weights to say anything.

    A scheme fits where the second moment is within 4 standard errors or a factor of 1.25 of its variance, in a form that it is drawn in.
    """
    if spread.count < FEWEST or not spread.finite or spread.second == 0:
        return None
    fitting = [(scheme, one) for one in fans for scheme in legitimate(around, one) if fits(spread, scheme, one)]
    found = sorted(_causes(spread, fans, around), key=lambda found: found[0])
    if fitting:
        scheme, one = min(fitting, key=lambda pair: (pair[0].tolerated, _distance(spread, pair[0].variance(pair[1]))))
        sharp = [each for each in found if _is_sharper(spread, each[2].variance(each[1]), scheme.variance(one))]
        if not sharp and scheme.tolerated:
            causes = [mistake for _, which, mistake in found if which == one]
            causes.sort(key=lambda mistake: mistake.variance(one) != scheme.variance(one))
            return Verdict(fans=one, wants=HE, fits=scheme, causes=_once(causes))
        if not sharp:
            return Verdict(fans=one, wants=scheme, fits=scheme)
        found = sharp
    one = found[0][1] if found else fans[0]
    causes = [mistake for _, which, mistake in found if which == one]
    return Verdict(fans=one, wants=_wanted(causes[0] if causes else None, around), causes=_once(causes))


def _wanted(cause: Mistake | None, around: Surroundings) -> Scheme:
    """The scheme that was meant: the one that a mistake is a mistake for, unless what follows says better."""
    if around.follows in _RECTIFIED:
        return HE
    if cause is None or cause.has_no_fans:
        return LECUN if around.follows in ("tanh", "sigmoid", "selu") else HE
    return {"He": HE, "LeCun": LECUN, "Glorot": GLOROT}[cause.wants]


def fits(spread: Spread, scheme: Scheme, fans: Fans) -> bool:
    """Whether the weights could have been drawn by a scheme."""
    if (spread.forms and not spread.forms & scheme.forms) or (not spread.forms and scheme.forms != ANY):
        return False
    variance = scheme.variance(fans)
    near = math.log(EXACT if scheme.exact else RATIO)
    return _distance(spread, variance) <= near or (abs(spread.deviates(variance)) <= ERRORS and not _is_ruled_out(spread, variance))


def _is_ruled_out(spread: Spread, variance: float) -> bool:
    """Whether the end of the distribution says clearly that it has another scale, whatever the mean of squares allows."""
    return spread.resolution > 0 and _distance(spread, variance) > max(6 * spread.resolution, math.log(EXACT))


def _is_sharper(spread: Spread, mistake: float, scheme: float) -> bool:
    """Whether the weights speak for a mistake and against a scheme that is close to it."""
    error = spread.resolution or math.sqrt(max(spread.kurtosis - 1, 0.5) / spread.count)
    far = 6 * error if spread.resolution else max(6 * error, math.log(1.1))
    return _distance(spread, mistake) <= 3 * error and _distance(spread, scheme) > far


def _distance(spread: Spread, variance: float) -> float:
    """How far off, in logarithms: by the sharper measure."""
    return abs(math.log(spread.sharp / variance))


def _causes(spread: Spread, fans: Sequence[Fans], around: Surroundings) -> Iterator[tuple[tuple[int, float], Fans, Mistake]]:
    """The mistakes whose variance is within 4 standard errors, with how likely each is (a lower pair is likelier)."""
    for one in fans:
        for mistake in (*FOR_RELU, *MISTAKES) if around.follows in _RECTIFIED else MISTAKES:
            if not mistake.applies(one) or (spread.forms and not spread.forms & mistake.forms):
                continue
            variance = mistake.variance(one)
            errors = abs(spread.deviates(variance))
            if errors <= ERRORS and _distance(spread, variance) <= math.log(RATIO) * 2:
                yield (mistake.rank + int(errors > 2.5), errors), one, mistake


def _once(causes: Sequence[Mistake]) -> tuple[Mistake, ...]:
    """Each cause once, and none that another one says as well: He and LeCun may be missed in the same way."""
    first: list[Mistake] = []
    for mistake in causes:
        if not any(mistake.cause in other.cause for other in first):
            first.append(mistake)
    return tuple(first)


def agreed(verdicts: Sequence[Verdict | None]) -> list[Verdict | None]:
    """The same verdicts, where several kernels of one model were drawn by one mistake: what explains the most of them is the likeliest.

    A cause that only one kernel allows gives way to one that two or more share.
    """
    shared = Counter(cause for verdict in verdicts if verdict for cause in {mistake.cause for mistake in verdict.causes})

    def settled(verdict: Verdict | None) -> Verdict | None:
        if verdict is None or not verdict.causes:
            return verdict
        most = max(shared[mistake.cause] for mistake in verdict.causes)
        if most < 2:
            return verdict
        return replace(verdict, causes=tuple(mistake for mistake in verdict.causes if shared[mistake.cause] == most))

    return [settled(verdict) for verdict in verdicts]
