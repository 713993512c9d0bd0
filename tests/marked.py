"""Small programs that mark in their own source where a person would look for the cause: `# <-- cause` ends the line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import nandetect as nd
from nandetect.records import Report

MARK = "# <-- cause"
# A function that gives a step and its arguments.
Program = Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]


def report_of(program: Program) -> Report:
    """The report of a program's step."""
    step, args = program()
    report = nd.locate(step, *args, prove=False)
    assert report is not None
    return report


def marked_line(function: Callable[..., object]) -> int:
    """The line of a function that bears the mark."""
    lines, start = inspect.getsourcelines(function)
    (line,) = [number for number, line in enumerate(lines, start) if line.rstrip().endswith(MARK)]
    return line


def cause_of(report: Report) -> str:
    """The lines of a report that say its causes, as they are read: joined, each in one line."""
    text = " ".join(line.strip() for line in str(report).splitlines())
    told = text.partition(" = because of ")[2]
    return told.partition(" = seen first")[0].replace(" = and that because of ", " <- ")
