"""How much faster a run of `nandetect train` could have been: its step is measured once more when the run is done."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax

from nandetect.annotations import Pytree
from nandetect.errors import UsageError
from nandetect.records import Finding
from nandetect.speed import audit, rules
from nandetect.speed.timed_step import TimedStep
from nandetect.train.prepare import Ready, batches
from nandetect.train.settings import TrainSettings

# Seconds that measuring may take, where there is something to measure.
_SECONDS = 2.0
_HELP = {"not-jitted": "leave --no-jit out", "x64": "leave --x64 out"}


def findings(settings: TrainSettings, ready: Ready, params: Pytree, state: Pytree) -> tuple[Finding, ...]:
    """The speed findings of a run that ended with these parameters and this state.

    For a jitted step in float32 they are about its callbacks alone: how batches arrive, and that the state is not donated, is decided by
    this command and not by its user.
    """
    inputs, targets = map(jax.device_put, next(itertools.islice(batches(ready, settings.seed), 1)))
    args = params, state, inputs, targets
    try:
        slow = audit.judge(ready.step, args, {}, _SECONDS, without=("not-donated",))
    except UsageError:
        # A model that trained and yet cannot be traced, or called again, has no speed findings.
        return ()
    if settings.x64 and settings.dtype is None:
        # The data have 32 bits at most: the option alone made them float64.
        widened = rules.x64(audit.narrowing(TimedStep(ready.step, args, {}), _SECONDS / 4))
        slow += [widened] if widened else []
    return tuple(replace(finding, help=_HELP.get(finding.rule, finding.help)) for finding in slow)
