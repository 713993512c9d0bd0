"""What was found, in one sentence, and as findings."""

from __future__ import annotations

import re

from nandetect.compare.results import Judged, Sameness, Survey, Threshold, Timing
from nandetect.records import Finding

_PATIENCE = 1.25


def sentence(judged: tuple[Judged, Judged], sameness: Sameness, timing: Timing | None, max_ulp: float) -> str:
    """Both functions, then whether they are the same one, then the cost."""
    parts = [_of(one, max_ulp) for one in judged]
    parts.append(_relation(sameness, judged[0].name, judged[1].name))
    if timing is not None:
        parts.append(_cost(timing, judged[1].name))
    return "; ".join(part for part in parts if part) + "."


def _of(one: Judged, max_ulp: float) -> str:
    survey = one.surveys[0]
    name = f"`{one.name}`"
    value, gradient = (_broken(survey, what) for what in ("value", "gradient"))
    inaccurate = _inaccurate(survey, max_ulp)
    if not value and not gradient:
        if one.breakage:
            made = f"its {one.breakage.what} is {_number(one.breakage.got)}"
            return f"{name} breaks at {one.breakage.input.family}: {made}" + (f", and it {inaccurate}" if inaccurate else "")
        return (
            f"{name} {inaccurate}"
            if inaccurate
            else f"{name} is finite {'wherever the truth is' if _bounded(survey) else 'throughout'} and {_within(survey)}"
        )
    said = f"{name} is non-finite for {_places(value)} in {survey.dtype}" if value else f"{name} is finite"
    if gradient:
        born = (
            one.parting.report.origin.reason if one.parting and one.parting.report and one.parting.report.origin.phase == "backward" else ""
        )
        broken = f"its gradient is {born or gradient[0].made}"
        same = value and any(
            abs(g.broken_from - v.broken_from) <= 0.02 * v.broken_from and g.family == v.family for g in gradient for v in value
        )
        said += f" and {broken} there" if same else f" and {broken} for {_places(gradient)}"
        said += "" if value else f" in {survey.dtype}"
    return said + (f", and it {inaccurate}" if inaccurate else "")


def _broken(survey: Survey, what: str) -> list[Threshold]:
    """The faults along families, those first that a reader thinks of first."""
    return [one for one in survey.thresholds if one.fault and one.what == what]


def _places(thresholds: list[Threshold]) -> str:
    """The first families, a phrase each."""
    phrases = [_phrase(one) for one in thresholds]
    first = phrases[0]
    kind = re.sub(r"[\d.e+-]+", "", first)
    others = [phrase for phrase in phrases[1:] if re.sub(r"[\d.e+-]+", "", phrase) != kind and " over " in phrase]
    return " and ".join([first, *others[:1]])


def _phrase(one: Threshold) -> str:
    return one.phrase.format(f"{one.broken_from:.4g}" if one.broken_from >= 1000 else f"{one.broken_from:.3g}")


def _inaccurate(survey: Survey, max_ulp: float) -> str:
    for worst in (survey.worst_value, survey.worst_gradient):
        if worst and worst.ulps > max_ulp:
            which = "" if worst.what == "value" else " in its gradient"
            return f"is {worst.ulps:,.0f} ulp off{which} at {worst.input.family} {worst.input.at:.3g}"
    return ""


def _bounded(survey: Survey) -> bool:
    return bool(survey.thresholds)


def _within(survey: Survey) -> str:
    most = max((worst.ulps for worst in (survey.worst_value, survey.worst_gradient) if worst), default=0.0)
    return f"within {most:.0f} ulp" if most >= 1 else "within 1 ulp"


def _relation(same: Sameness, first: str, second: str) -> str:
    if same.relation == "factor" and same.amount is not None:
        return f"they are different functions: `{second}` is {_number(same.amount)} times `{first}`"
    if same.relation == "offset" and same.amount is not None:
        return f"they are different functions: `{second}` is `{first}` {'-' if same.amount < 0 else '+'} {_number(abs(same.amount))}"
    return {"different": "they are different functions", "unknown": "whether they are the same function could not be told"}.get(
        same.relation, ""
    )


def _cost(timing: Timing, second: str) -> str:
    ratio = timing.backward.median
    if 1 / _PATIENCE <= ratio <= _PATIENCE:
        return "same cost"
    return f"`{second}` takes {ratio:.2g} times as long"


def _number(x: float) -> str:
    return f"{x:.6g}"


def findings(judged: tuple[Judged, Judged], sameness: Sameness, max_ulp: float) -> tuple[Finding, ...]:
    """Errors of the functions that have a fault, and notes."""
    found: list[Finding] = []
    for one in judged:
        found += _faults(one, max_ulp)
    relation = _relation(sameness, judged[0].name, judged[1].name)
    if relation and sameness.relation != "unknown":
        found.append(Finding(rule="different-function", code="ND403", severity="note", message=relation, measured=sameness.amount))
    return tuple(found)


def _faults(one: Judged, max_ulp: float) -> list[Finding]:
    survey, found = one.surveys[0], []
    if one.breakage:
        broken = one.breakage
        found.append(
            Finding(
                rule="non-finite",
                code="ND401",
                severity="error",
                message=f"the {broken.what} of `{one.name}` is {_number(broken.got)} in {survey.dtype} where the truth is {_number(broken.truth)}",
                cause=one.parting.report.origin.reason if one.parting and one.parting.report else "",
                measured=broken.got,
                expected=broken.truth,
                report=one.parting.report if one.parting else None,
            )
        )
    for worst in (survey.worst_value, survey.worst_gradient):
        if worst and worst.ulps > max_ulp:
            found.append(
                Finding(
                    rule="inaccurate",
                    code="ND402",
                    severity="error",
                    message=f"the {worst.what} of `{one.name}` is {worst.ulps:,.0f} ulp from the truth in {survey.dtype}, at {worst.input.family}",
                    measured=worst.got,
                    expected=worst.truth,
                )
            )
    return found
