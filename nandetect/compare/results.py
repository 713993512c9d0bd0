"""The records of a comparison of two losses, as plain data. No JAX here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nandetect.records import Event, Finding, Report, Source

What = Literal["value", "gradient"]
Relation = Literal["same", "factor", "offset", "different", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input: where it lies in the sweep, and the lines of Python that make it."""

    family: str
    phrase: str
    at: float
    code: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The size of a family up to which the value or the gradient is finite, and that from which it is not.

    `finite_to` is None where the smallest size of the family is non-finite already. `fault` is False where the truth is not finite either,
    or there is none. `lasting` is False where most larger sizes are finite again, so that the size is a point rather than a threshold.
    """

    family: str
    phrase: str
    what: What
    finite_to: float | None
    broken_from: float
    made: str
    fault: bool
    lasting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The size of a family from which an equation inside the function makes a non-finite value of finite ones."""

    family: str
    primitive: str
    made: str
    at: float
    source: Source | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The distance of a function from the truth at one size of a family, in ulps; None where there is no truth, or no finite result."""

    family: str
    at: float
    value_ulps: float | None
    gradient_ulps: float | None
    value_finite: bool
    gradient_finite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The input at which the value or the gradient is furthest from the truth; `got` and `truth` are those of the worst element."""

    what: What
    ulps: float
    got: float
    truth: float
    input: Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One function in one dtype."""

    dtype: str
    thresholds: tuple[Threshold, ...]
    limits: tuple[Limit, ...]
    samples: tuple[Sample, ...]
    worst_value: Worst | None
    worst_gradient: Worst | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakage:
    """The smallest input at which the function is not finite and the truth is: its result, the truth, and the report of the origin."""

    what: What
    got: float
    truth: float
    input: Input
    report: Report | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """The equation that loses the most: the distance of its result from the truth, and that of its operands, each in its own ulps."""

    event: Event
    ulps: float
    ulps_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The judgement of one function in one dtype, with surveys in others. `exact` is False where float64 stood in for the truth."""

    name: str
    sound: bool
    exact: bool
    unsupported: tuple[str, ...]
    surveys: tuple[Survey, ...]
    breakages: tuple[Breakage, ...]
    parting: Parting | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sameness:
    """The relation of the second function to the first, where both are well conditioned; `amount` is the factor or the offset."""

    relation: Relation
    amount: float | None = None
    difference: float | None = None
    points: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Microseconds per call of each, and the second's time over the first's in interleaved rounds."""

    first: float
    second: float
    least: float
    median: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The times of compiled calls, on arrays of `shape`."""

    shape: tuple[int, ...]
    forward: Ratio
    backward: Ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One training run: `accuracy` holds (step, share of the held-out samples that are right)."""

    name: str
    steps: int
    non_finite_step: int | None
    report: Report | None
    loss: float | None
    accuracy: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The same model, data, seeds and batches under each loss; `parted_at` is the first step whose losses differ by more than rounding."""

    parted_at: int | None
    runs: tuple[Trained, Trained]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two losses against the truth."""

    verdict: str
    names: tuple[str, str]
    dtype: str
    max_ulp: float
    labels: str
    shapes: tuple[tuple[int, ...], ...]
    parameters: tuple[str, ...]
    sameness: Sameness
    judged: tuple[Judgement, Judgement]
    timing: Timing | None
    training: Training | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
