"""The root causes among the findings: which rule explains which, so that one cause gives one finding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nandetect.records import Finding

_STUCK = "loss-at-chance learning-rate-low"
_FLOW = "saturated-units dead-units vanishing-gradient exploding-gradient frozen-parameters"
_UNSTABLE = "divergence non-finite gradient-spike learning-rate-high skipped-steps"
# The rules that each rule explains. Their order counts: of two rules that explain each other, the one that stands first is the root.
EXPLAINS: dict[str, frozenset[str]] = {
    rule: frozenset(consequences.split())
    for rule, consequences in {
        "init-symmetry": f"{_STUCK} {_FLOW} learning-rate-high init-scale",
        "inputs-unscaled": f"{_STUCK} {_UNSTABLE} {_FLOW} init-scale",
        "init-scale": f"{_STUCK} {_UNSTABLE} {_FLOW} overflow-headroom",
        "skipped-steps": f"{_STUCK} non-finite frozen-parameters overflow-headroom",
        "exploding-gradient": f"{_STUCK} {_UNSTABLE} {_FLOW} overflow-headroom",
        "learning-rate-high": f"{_STUCK} {_UNSTABLE} {_FLOW} overflow-headroom",
        "overflow-headroom": f"{_STUCK} non-finite",
        "underflow": f"{_STUCK} vanishing-gradient frozen-parameters dead-units gradient-absorption",
        "dead-units": f"{_STUCK} vanishing-gradient frozen-parameters saturated-units",
        "frozen-parameters": f"{_STUCK} vanishing-gradient",
        "gradient-absorption": f"{_STUCK} frozen-parameters",
        "saturated-units": f"{_STUCK} vanishing-gradient",
        "vanishing-gradient": f"{_STUCK} gradient-spike",
        "learning-rate-low": "loss-at-chance vanishing-gradient",
        "divergence": "gradient-spike non-finite",
        "non-finite": "gradient-spike",
    }.items()
}
# Consequences that are shown as a note beside their root, since a reader notices them first. The others are left out.
_SHOWN = frozenset({"non-finite", "divergence", "loss-at-chance", "dead-units"})


def rooted(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with the roots first; those that a root explains are made notes, or left out."""
    order = {rule: rank for rank, rule in enumerate(EXPLAINS)}
    roots: list[Finding] = []
    notes: list[Finding] = []
    for finding in sorted(findings, key=lambda finding: order.get(finding.rule, len(order))):
        root = next((root for root in roots if root.severity != "note" and finding.rule in EXPLAINS.get(root.rule, ())), None)
        if root is None:
            roots.append(finding)
        elif finding.rule in _SHOWN:
            notes.append(dataclasses.replace(finding, severity="note", cause=f"follows from {root.rule}: {root.cause}"))
    return sorted(roots, key=lambda finding: finding.step or 0) + notes
