"""The conclusions of a comparison: its verdict in one sentence, and its findings."""

from __future__ import annotations

import math

from nandetect import wording
from nandetect.compare.results import Breakage, Judgement, Sameness, Survey, Threshold, Timing
from nandetect.records import Finding

# The ratio of times up to which two functions cost the same.
_SAME_COST = 1.25


def sentence(judgements: tuple[Judgement, Judgement], sameness: Sameness, timing: Timing | None, max_ulp: float) -> str:
    """The verdict: a clause for each function, then how they differ, then what the second costs."""
    parts = [_of(judgement, max_ulp) for judgement in judgements]
    parts.append(_relation(sameness, judgements[0].name, judgements[1].name))
    if timing is not None:
        parts.append(_cost(timing, judgements[1].name))
    return "; ".join(part for part in parts if part) + "."


def _of(judgement: Judgement, max_ulp: float) -> str:
    survey, name = judgement.surveys[0], f"`{judgement.name}`"
    broken = {breakage.what: breakage for breakage in judgement.breakages}
    value, gradient = (_where(survey, broken[what]) if what in broken else "" for what in ("value", "gradient"))
    inaccurate = _inaccurate(survey, max_ulp)
    if not broken:
        reach = "wherever the truth is" if survey.thresholds else "throughout"
        return f"{name} {inaccurate}" if inaccurate else f"{name} is finite {reach} and {_within(survey)}"
    clause = f"{name} is non-finite for {value} in {survey.dtype}" if value else f"{name} is finite"
    if gradient:
        kind = _kind(broken["gradient"])
        clause += f" and its gradient is {kind} there" if gradient == value else f" and its gradient is {kind} for {gradient}"
        clause += "" if value else f" in {survey.dtype}"
    return clause + (f", and it {inaccurate}" if inaccurate else "")


def _where(survey: Survey, broken: Breakage) -> str:
    """The inputs for which a function breaks, in words: the first family or point, and a family of equal numbers beside it."""
    steady = [threshold for threshold in survey.thresholds if threshold.what == broken.what and _is_steady(threshold)]
    if not steady:
        return broken.input.phrase.format(wording.magnitude(broken.input.at))
    others = [threshold for threshold in steady[1:] if threshold.family.startswith("all equal")]
    return " and ".join(_phrase(threshold) for threshold in (steady[0], *others[:1]))


def _is_steady(threshold: Threshold) -> bool:
    """Whether the function breaks at this size and stays broken."""
    return threshold.fault and threshold.lasting and threshold.finite_to is not None


def _kind(broken: Breakage) -> str:
    """`0/0`, or the value that came out."""
    origin = broken.report.origin if broken.report else None
    if origin is not None and origin.primitive == "div" and [operand.value for operand in origin.operands[:2]] == [0.0, 0.0]:
        return "0/0"
    return "nan" if math.isnan(broken.got) else wording.precise(broken.got)


def _phrase(threshold: Threshold) -> str:
    return threshold.phrase.format(wording.magnitude(threshold.broken_from))


def _inaccurate(survey: Survey, max_ulp: float) -> str:
    for worst in (survey.worst_value, survey.worst_gradient):
        if worst and worst.ulps > max_ulp:
            which = "" if worst.what == "value" else " in its gradient"
            return f"is {worst.ulps:,.0f} ulp off{which} for {worst.input.phrase.format(wording.magnitude(worst.input.at))}"
    return ""


def _within(survey: Survey) -> str:
    most = max((worst.ulps for worst in (survey.worst_value, survey.worst_gradient) if worst), default=0.0)
    return f"within {most:.0f} ulp" if most >= 1 else "within 1 ulp"


def _relation(same: Sameness, first: str, second: str) -> str:
    if same.relation == "factor" and same.amount is not None:
        return f"they are different functions: `{second}` is {wording.precise(same.amount)} times `{first}`"
    if same.relation == "offset" and same.amount is not None:
        return (
            f"they are different functions: `{second}` is `{first}` {'-' if same.amount < 0 else '+'} {wording.precise(abs(same.amount))}"
        )
    return {"different": "they are different functions", "unknown": "whether they are the same function could not be told"}.get(
        same.relation, ""
    )


def _cost(timing: Timing, second: str) -> str:
    ratio = timing.backward.median
    if 1 / _SAME_COST <= ratio <= _SAME_COST:
        return "same cost"
    return f"`{second}` takes {ratio:.2g} times as long"


def findings(judgements: tuple[Judgement, Judgement], sameness: Sameness, max_ulp: float) -> tuple[Finding, ...]:
    """An error for each fault of a function, and notes."""
    collected: list[Finding] = []
    for judgement in judgements:
        collected += [*_faults(judgement, max_ulp), *_elsewhere(judgement)]
    relation = _relation(sameness, judgements[0].name, judgements[1].name)
    if relation and sameness.relation != "unknown":
        collected.append(Finding(rule="different-function", code="ND403", severity="note", message=relation, measured=sameness.amount))
    return tuple(collected)


def _faults(judgement: Judgement, max_ulp: float) -> list[Finding]:
    survey = judgement.surveys[0]
    faults: list[Finding] = []
    for broken in judgement.breakages:
        got, truth = wording.precise(broken.got), wording.precise(broken.truth)
        message = f"the {broken.what} of `{judgement.name}` is {got} in {survey.dtype} where the truth is {truth}"
        faults.append(
            Finding(
                rule="non-finite",
                code="ND401",
                severity="error",
                message=message,
                cause=broken.report.origin.reason if broken.report else "",
                measured=broken.got,
                expected=broken.truth,
                report=broken.report,
            )
        )
    for worst in (survey.worst_value, survey.worst_gradient):
        if worst and worst.ulps > max_ulp:
            faults.append(
                Finding(
                    rule="inaccurate",
                    code="ND402",
                    severity="error",
                    message=f"the {worst.what} of `{judgement.name}` is {worst.ulps:,.0f} ulp from the truth in {survey.dtype}",
                    measured=worst.got,
                    expected=worst.truth,
                )
            )
    return faults


def _elsewhere(judgement: Judgement) -> list[Finding]:
    """Notes on the other types in which a function breaks, where it is sound in the one that was asked for."""
    notes = []
    for survey in judgement.surveys[1:] if judgement.sound else ():
        broken = [threshold for threshold in survey.thresholds if _is_steady(threshold)]
        if broken:
            message = f"in {survey.dtype} the {broken[0].what} of `{judgement.name}` is non-finite for {_phrase(broken[0])}"
            notes.append(Finding(rule="low-precision", code="ND404", severity="note", message=message, measured=broken[0].broken_from))
    return notes
