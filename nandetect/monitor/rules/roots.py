"""The roots among the findings: one cause, one finding, and which rule explains which."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nandetect.records import Finding

_STUCK = "loss-at-chance learning-rate-low"
_FLOW = "saturated-units dead-units vanishing-gradient exploding-gradient frozen-parameters"
_UNSTABLE = "divergence non-finite gradient-spike learning-rate-high skipped-steps"
# The rules that each rule explains. Of two that explain each other, the one that stands first here is the root.
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
# Consequences that stand as a note beside their root, as a reader sees them first. The others are left out.
_TOLD = frozenset({"non-finite", "divergence", "loss-at-chance", "dead-units"})


def rooted(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with their roots first, what another of them explains as a note or not at all."""
    order = {rule: place for place, rule in enumerate(EXPLAINS)}
    roots: list[Finding] = []
    notes: list[Finding] = []
    for finding in sorted(findings, key=lambda finding: order.get(finding.rule, len(order))):
        root = next((root for root in roots if root.severity != "note" and finding.rule in EXPLAINS.get(root.rule, ())), None)
        if root is None:
            roots.append(finding)
        elif finding.rule in _TOLD:
            notes.append(dataclasses.replace(finding, severity="note", cause=f"follows from {root.rule}: {root.cause}"))
    return sorted(roots, key=lambda finding: finding.step or 0) + notes
