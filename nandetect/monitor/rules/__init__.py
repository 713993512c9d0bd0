"""What the history of a run says of its health: the table of rules, and `judge`, which asks them all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nandetect.history import History, take
from nandetect.monitor.rules import beginning, finite, flow, losses, precision, rates, spikes, units
from nandetect.monitor.rules.columns import Course
from nandetect.monitor.rules.roots import rooted
from nandetect.records import Finding

Rule = Callable[[Course], list[Finding]]
# Rules of the whole run, and rules of its sound part, which ends where it is no longer finite.
WHOLE: tuple[Rule, ...] = (finite.non_finite, finite.skipped_steps, precision.overflow_headroom)
SOUND: tuple[Rule, ...] = (
    precision.underflow,
    beginning.init_symmetry,
    beginning.init_scale,
    beginning.inputs_unscaled,
    flow.exploding_gradient,
    flow.vanishing_gradient,
    flow.saturated_units,
    units.frozen_parameters,
    units.gradient_absorption,
    units.dead_units,
    rates.learning_rate_high,
    rates.learning_rate_low,
    losses.divergence,
    losses.loss_at_chance,
    spikes.spikes,
)


def judge(history: History) -> list[Finding]:
    """The findings of a run so far: for each root cause one error or warning; what follows from it is left out, or a note.

    Pure numpy; some 0.1 s for 10,000 points of 100 leaves. The thresholds and what they were tried on stand with each rule, the figures
    of recall and false alarms in `benchmarks/training_health.py`.
    """
    if not len(history):
        return []
    # Numbers of a sick run overflow inside the rules; each rule asks whether its own results are finite.
    with np.errstate(all="ignore"):
        return _judged(history)


def _judged(history: History) -> list[Finding]:
    whole = Course(history)
    broken = np.flatnonzero(finite.broken_points(whole))
    # Measures of a model that is no longer finite say nothing about it: the sound part ends before them.
    sound = Course(take(history, slice(max(int(broken[0]), 1))), broken=True) if broken.size else whole
    return rooted([finding for rules, course in ((WHOLE, whole), (SOUND, sound)) for rule in rules for finding in rule(course)])
