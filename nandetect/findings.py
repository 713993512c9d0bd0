"""Findings that more than one tool makes. No JAX here."""

from __future__ import annotations

from nandetect.records import Finding, Report


def non_finite(report: Report) -> Finding:
    """A located fault as a finding."""
    origin = report.origin
    made = f"`{origin.argument}` arrived as" if origin.argument else f"`{origin.primitive}` made"
    where = f" of step {report.step}" if report.step is not None else ""
    return Finding(
        rule="non-finite",
        code="ND001",
        severity="error",
        message=f"{made} {origin.value} in the {origin.phase} pass{where}",
        cause=origin.reason,
        step=report.step,
        report=report,
    )
