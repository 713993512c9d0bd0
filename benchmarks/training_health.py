"""Healthy and sick training runs under `nd.Monitor`: how many of the sick are named with the right cause, how many of the healthy alarmed.

    python benchmarks/training_health.py                     # the runs on which thresholds were looked at
    python benchmarks/training_health.py --held-out          # other architectures, widths, rates, optimizers and seeds
    python benchmarks/training_health.py --mnist DIR         # the person's puzzle, on 8,000 images of a directory of IDX files
    python benchmarks/training_health.py --only lr-high -v   # one kind of run, with what was found

A sick run counts as named where an error or a warning has one of the rules that its fault may be called by, and says the right cause. A
healthy one counts as alarmed where there is any error or warning. Init mistakes are looked at by `nd.audit_init` as well, before the first
step.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import health_cases
import health_held_out
import health_mnist
import jax
import jax.numpy as jnp
import numpy as np
from health_runs import Case, watch

import nandetect as nd
from nandetect.records import Finding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--mnist", type=Path, metavar="DIR")
    parser.add_argument("--only", default="", metavar="NAME")
    parser.add_argument("-v", "--verbose", action="store_true")
    asked = parser.parse_args()
    part = health_held_out if asked.held_out else health_cases
    cases = health_mnist.cases(asked.mnist) if asked.mnist else [*part.HEALTHY, *part.SICK]
    table([case for case in cases if asked.only in case.name], asked.verbose)
    if not asked.mnist:
        spikes([case for case in part.SPIKED if asked.only in case.name])


def table(cases: Iterable[Case], verbose: bool) -> None:
    """A line for each kind of fault: runs, how many were named, how many by one finding alone; one for the healthy; a total."""
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for case in cases:
        alarms = [finding for finding in findings(case) if finding.severity != "note"]
        rules = {finding.rule for finding in alarms}
        right = any(one.rule in case.expected and re.search(case.cause, one.cause) for one in alarms) if case.sick else not alarms
        rows.setdefault(case.fault.removeprefix("h-").partition("-mlp")[0] if case.sick else "healthy", []).append((right, len(rules) == 1))
        if verbose or not right:
            say(f"{'' if right else 'WRONG '}{case.name}: {', '.join(f'{one.rule} ({one.cause})' for one in alarms) or 'nothing'}")
    say(f"{'':24} runs  named  by one finding")
    for fault, of in sorted(rows.items(), key=lambda row: row[0] == "healthy"):
        if fault != "healthy":
            say(f"{fault:24} {len(of):4}  {sum(right for right, _ in of):5}  {sum(right and one for right, one in of):5}")
    sick = list(itertools.chain(*(of for fault, of in rows.items() if fault != "healthy")))
    healthy = rows.get("healthy", [])
    if sick:
        say(f"{'all sick':24} {len(sick):4}  {sum(right for right, _ in sick):5}  {sum(right for right, _ in sick) / len(sick):.1%}")
    if healthy:
        say(
            f"{'healthy':24} {len(healthy):4}  {sum(not right for right, _ in healthy)} alarmed, {np.mean([not r for r, _ in healthy]):.1%}"
        )


def findings(case: Case) -> list[Finding]:
    """What the monitor says at the end, and the audit before the first step, where there is one."""
    monitor, start = watch(case)
    return [*monitor.findings(), *(audit(case, start) if "init-" in case.name else [])]


def audit(case: Case, start: Any) -> list[Finding]:
    """What is said of the initial weights in the model, on a few samples."""
    apply, key = case.model().apply, jax.random.key(0)
    return nd.audit_init(start, lambda params, x: apply(params, x, key), jnp.asarray(case.task().inputs[:32]))


def spikes(cases: Iterable[Case]) -> None:
    """Gradients multiplied by 3 at 40 steps of a healthy run: found, and found elsewhere."""
    total = hit = false = steps = 0
    for case in cases:
        monitor, _ = watch(case)
        found = {one.step for one in monitor.findings() if one.rule == "gradient-spike"}
        planted = set(case.spikes)
        say(f"{case.name:28} {len(found & planted)} of {len(planted)} spikes x {case.factor:g} found, {len(found - planted)} elsewhere")
        total, hit, false, steps = total + len(planted), hit + len(found & planted), false + len(found - planted), steps + case.steps
    if total:
        say(f"{'all':28} {hit / total:.1%} found, {1000 * false / (steps - total):.2f} elsewhere in 1,000 steps")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
