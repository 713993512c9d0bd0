"""`nandetect explain`: the page behind a code."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated

import typer

from nandetect import hazards
from nandetect.cli import options, output
from nandetect.errors import UsageError
from nandetect.findings import CODES
from nandetect.hazards.explaining import Explanation, Trial, explained
from nandetect.hazards.hazard import Hazard
from nandetect.records import plain

# What findings are about, by the hundreds of their codes.
ABOUT = {"ND0": "a fault", "ND1": "initial weights and inputs", "ND3": "training health", "ND5": "speed"}


def command(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="ND201, or a name: log-of-softmax; all where left out.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page of documentation.")] = False,
    json: options.Json = None,
) -> None:
    """Explain a code: what breaks, why, the stable way to write it, and what both give.

    Both ways are run for it. Without a code, all codes are listed.
    """
    document = output.JsonOutput(json)
    if code is None:
        lines, body = list(listed()), {"codes": [{"code": one, "name": name} for one, name in _all()]}
    elif (rule := _rule(code)) is not None:
        lines, body = [_of_rule(*rule)], {"code": rule[0], "name": rule[1]}
    else:
        page = explained(_hazard(code))
        lines = list(as_markdown(page) if markdown else told(page))
        body = plain(page)
    if not document.takes_stdout:
        output.write_lines(lines)
    document.write("explain", (), lambda: body)


def _all() -> list[tuple[str, str]]:
    return sorted([*((code, name) for name, code in CODES.items()), *((hazard.code, hazard.name) for hazard in hazards.HAZARDS)])


def listed() -> Iterator[str]:
    """All codes with their names."""
    for code, name in _all():
        yield f"{code}  {name}"


def _rule(code: str) -> tuple[str, str] | None:
    return next(((number, name) for name, number in CODES.items() if code.upper() == number or code.lower() == name), None)


def _of_rule(code: str, name: str) -> str:
    return f"{code} {name}: a finding about {ABOUT[code[:3]]}. Its message says what was measured, and its help what to do."


def _hazard(code: str) -> Hazard:
    for hazard in hazards.HAZARDS:
        if code.upper() == hazard.code or code.lower() == hazard.name:
            return hazard
    known = {part.lower(): part for pair in _all() for part in pair}
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
