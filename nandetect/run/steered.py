"""What a NaN steered in a program in which nothing that was seen is non-finite: asked once, at the end of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from nandetect import compat, effects, findings
from nandetect.guarding.steered import LEAST, SHARE, asked
from nandetect.guarding.working import working
from nandetect.interpret.loops import holds_while
from nandetect.records import Finding
from nandetect.run.functions import Functions
from nandetect.run.operation_log import OperationLog
from nandetect.run.operations import Operation, program

# The operations that have a loop within and are asked of, the last ones.
_OPERATIONS = 4


def steered(functions: Functions, log: OperationLog, seconds: float) -> list[Finding]:
    """The findings of a program that took so many seconds."""
    until = time.perf_counter() + max(SHARE * seconds, LEAST)
    found: list[Finding] = []
    for shared, calls in functions.to_be_asked():
        try:
            finding = calls.finding(shared.step, shared.compilations, until - time.perf_counter())
        # That it could not be asked is no reason to fail where nothing is wrong.
        except Exception:
            continue
        found += [finding] if finding else []
    looping = [number for number, operation in enumerate(log.latest()) if _loops(operation)]
    for number in looping[: -_OPERATIONS - 1 : -1]:
        left = until - time.perf_counter()
        if left > 0 and not found and (finding := _of_operation(log, number, left)) is not None:
            found.append(finding)
    return found


def _loops(operation: Operation) -> bool:
    as_equation: Any = SimpleNamespace(primitive=operation.what, params=operation.how)
    return isinstance(operation.how, dict) and holds_while(as_equation)


def _of_operation(log: OperationLog, number: int, most: float) -> Finding | None:
    try:
        with working, compat.outside_of_traces(), effects.replay_settings(), effects.muted_effects():
            operation = log.latest()[number]
            beside = log.beside_used(operation)
            tokens = [token for token in operation.results if token is not None and id(token) not in beside]
            report = asked(program([operation], tokens, log.inputs(number, number + 1)), most)
        return findings.steered(report) if report is not None else None
    except Exception:
        return None
