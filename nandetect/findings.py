"""The numbers of all rules, and the findings that more than one tool makes. No JAX here."""

from __future__ import annotations

from typing import TypedDict, Unpack

from nandetect.records import Finding, Report, Severity

# The number of each rule, by which a user looks it up; a rule's name and number never change.
CODES = {
    "non-finite": "ND001",
    "skipped-steps": "ND012",
    "init-scale": "ND101",
    "init-symmetry": "ND102",
    "inputs-unscaled": "ND103",
    "loss-at-start": "ND104",
    "signal-drift": "ND105",
    "exploding-gradient": "ND301",
    "vanishing-gradient": "ND302",
    "gradient-spike": "ND303",
    "divergence": "ND304",
    "loss-at-chance": "ND305",
    "learning-rate-high": "ND306",
    "learning-rate-low": "ND307",
    "dead-units": "ND308",
    "saturated-units": "ND309",
    "frozen-parameters": "ND310",
    "overflow-headroom": "ND311",
    "underflow": "ND312",
    "gradient-absorption": "ND313",
    "not-jitted": "ND501",
    "recompiling": "ND502",
    "x64": "ND503",
    "host-transfer": "ND504",
    "not-donated": "ND505",
}


# Bounds of harmless skipping: more skipped steps in a row than `SKIPS_RUNNING`, or a larger share of at least `SKIPS_ENOUGH` steps than
# `SKIPS_SHARE`, are a fault. A dynamic loss scale that has settled skips a step now and then when it tries a larger scale.
SKIPS_RUNNING, SKIPS_SHARE, SKIPS_ENOUGH = 3, 0.01, 100


class Fields(TypedDict, total=False):
    """The fields of a `Finding` beside its rule, severity and message."""

    cause: str
    layer: str | None
    step: int | None
    measured: object
    expected: object
    help: str
    report: Report | None


def finding(rule: str, severity: Severity, message: str, **fields: Unpack[Fields]) -> Finding:
    """A finding with the number of its rule."""
    return Finding(rule=rule, code=CODES[rule], severity=severity, message=message, **fields)


def non_finite(report: Report) -> Finding:
    """A located fault as a finding."""
    origin = report.origin
    made = f"`{origin.argument}` arrived as" if origin.argument else f"`{origin.primitive}` made"
    where = f" of step {report.step}" if report.step is not None else ""
    return finding(
        "non-finite",
        "error",
        f"{made} {origin.value} in the {origin.phase} pass{where}",
        cause=origin.reason,
        step=report.step,
        report=report,
    )


def steered(report: Report) -> Finding:
    """A NaN that decided what finite results depend on, as a finding."""
    origin, where = report.origin, ""
    if origin.source is not None:
        where = f" at {origin.source.file.rsplit('/', 1)[-1]}:{origin.source.line}"
    step = f" in step {report.step}" if report.step is not None else ""
    return finding(
        "non-finite",
        "warning",
        f"`{origin.primitive}`{where} made nan{step}, and {report.notes[-1]}: the results are finite, and not what was meant",
        cause=f"{origin.reason}; a comparison with nan is false, whatever it is compared with",
        step=report.step,
        help="keep what is computed where it is defined, or ask `jnp.isfinite` first, so that what a nan decides is meant",
        report=report,
    )
