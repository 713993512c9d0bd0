"""The page behind a code, as `nandetect explain` shows it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from nandetect import hazards
from nandetect.errors import UsageError
from nandetect.findings import CODES
from nandetect.hazards.explaining import Explanation, Trial
from nandetect.hazards.hazard import Hazard

# What findings are about, by the hundreds of their codes.
ABOUT = {"ND0": "a fault", "ND1": "initial weights and inputs", "ND3": "training health", "ND5": "speed"}


def codes() -> list[tuple[str, str]]:
    """All codes with their names, in order."""
    return sorted([*((code, name) for name, code in CODES.items()), *((hazard.code, hazard.name) for hazard in hazards.HAZARDS)])


def listed() -> Iterator[str]:
    """All codes with their names."""
    for code, name in codes():
        yield f"{code}  {name}"


def rule(code: str) -> tuple[str, str] | None:
    """The code and the name of a kind of finding, by either; None for none."""
    return next(((number, name) for name, number in CODES.items() if code.upper() == number or code.lower() == name), None)


def of_rule(code: str, name: str) -> str:
    """The line of a kind of finding."""
    return f"{code} {name}: a finding about {ABOUT[code[:3]]}. Its message says what was measured, and its help what to do."


def hazard(code: str) -> Hazard:
    """A hazard by its code or name. Raises `UsageError` where there is none."""
    for one in hazards.HAZARDS:
        if code.upper() == one.code or code.lower() == one.name:
            return one
    known = {part.lower(): part for pair in codes() for part in pair}
    near = [known[part] for part in difflib.get_close_matches(code.lower(), known, 1)]
    raise UsageError(f"there is no code {code}" + (f"; did you mean {near[0]}?" if near else "; `nandetect explain` lists all"))


def told(page: Explanation) -> Iterator[str]:
    """The page for a terminal."""
    yield f"{page.code} {page.name}"
    yield ""
    yield page.why
    yield ""
    yield f"  before  {page.before}"
    yield f"  after   {page.after}"
    for trial in _trials(page):
        yield ""
        yield f"at {trial.inputs} ({page.dtype}{', value and gradient' if page.fails == 'gradient' else ''})"
        yield f"  before  {trial.before}"
        yield f"  after   {trial.after}"


def as_markdown(page: Explanation) -> Iterator[str]:
    """The page for documentation."""
    yield f"# {page.code}: {page.name}"
    yield ""
    yield page.why[0].upper() + page.why[1:] + "."
    yield ""
    yield from ("```python", page.before, "```", "", "Stable:", "", "```python", page.after, "```")
    yield from ("", f"| {page.dtype} | before | after |", "|---|---|---|")
    for trial in _trials(page):
        yield f"| `{trial.inputs}` | `{trial.before}` | `{trial.after}` |"


def _trials(page: Explanation) -> list[Trial]:
    return [page.breaks, *([page.ordinary] if page.ordinary else [])]
