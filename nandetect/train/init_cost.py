"""The cost of a wrong initial scale, measured by a twin: the same run from He's scale, until it has got as far or reached its bounds."""

from __future__ import annotations

import time

from nandetect.monitor import layout
from nandetect.records import Finding
from nandetect.train.ledger import Ledger
from nandetect.train.optimizers import OPTIMIZERS
from nandetect.train.prepare import Ready, batches, parameters
from nandetect.train.settings import InitCost, TrainSettings
from nandetect.train.start import RULES

SCHEME = "he"
# Seconds that the twin may take: no longer than the run, nor than the upper bound; the lower one is for runs that are over at once.
_LEAST, _MOST = 1.0, 30.0


def is_due(ready: Ready, ledger: Ledger, findings: tuple[Finding, ...]) -> bool:
    """Whether a twin is to be run: the audit warned of a wrong scale, and the model can be drawn by the right one."""
    warned = any(finding.rule in RULES and finding.severity != "note" for finding in findings)
    return warned and SCHEME in ready.model.schemes and ready.init != SCHEME and ledger.best is not None


def measured(ready: Ready, settings: TrainSettings, ledger: Ledger) -> InitCost | None:
    """The cost against a twin that is run now, None where the user interrupts it."""
    try:
        return _measured(ready, settings, ledger)
    except KeyboardInterrupt:
        return None


def _measured(ready: Ready, settings: TrainSettings, ledger: Ledger) -> InitCost:
    """Run the twin: the same samples in the same order, the same seed and settings, drawn by He's scheme.

    It runs until it has reached the goal of the first run: an epoch in which every training sample was right, or else the first run's
    lowest mean loss of an epoch. It also stops after as many epochs as that took, or when its time is over.
    """
    assert ledger.best is not None
    goal_epoch, goal_loss = (ledger.overfit.epoch, None) if ledger.overfit else ledger.best
    seconds = min(max(ledger.seconds, _LEAST), _MOST)
    params = parameters(ready, settings, SCHEME)
    twin = Ledger(ready.steps_per_epoch, ready.batch_size, layout.of(params))
    state = OPTIMIZERS[settings.optimizer](settings.lr).init(params)
    deadline = time.perf_counter() + seconds
    for inputs, targets in batches(ready, settings.seed):
        is_over = twin.entered >= goal_epoch * ready.steps_per_epoch or time.perf_counter() > deadline
        if is_over or _goal_reached(twin, goal_loss) is not None:
            break
        params, state, metrics = ready.step(params, state, inputs, targets, params, False)
        twin.enter(metrics["vitals"])
    twin.settle()
    reached = _goal_reached(twin, goal_loss)
    return InitCost(
        scheme=SCHEME,
        epoch=goal_epoch,
        loss=goal_loss,
        twin_epoch=reached,
        twin_epochs=twin.entered / ready.steps_per_epoch,
        complete=reached is not None or twin.entered >= goal_epoch * ready.steps_per_epoch,
    )


def _goal_reached(twin: Ledger, loss: float | None) -> int | None:
    """The epoch in which the twin reached the goal: that loss or a lower one, or without one, every sample right."""
    if loss is None:
        return twin.overfit.epoch if twin.overfit else None
    # The best epoch of the twin is the first that was good enough, as the twin stops there.
    return twin.best[0] if twin.best is not None and twin.best[1] <= loss else None
