"""What a wrong initial scale cost: the same run again from He's scale, for as long as it takes to get as far, within bounds."""

from __future__ import annotations

import time

from nandetect.monitor import layout
from nandetect.records import Finding
from nandetect.train.ledger import Ledger
from nandetect.train.optimizers import OPTIMIZERS
from nandetect.train.prepare import Ready, batches, parameters
from nandetect.train.settings import Settings, Toll
from nandetect.train.start import RULES

SCHEME = "he"
# Seconds that the second run may take: no longer than the first, nor than the upper bound; the lower one is for runs that are over at once.
_LEAST, _MOST = 1.0, 30.0


def is_due(ready: Ready, ledger: Ledger, findings: tuple[Finding, ...]) -> bool:
    """Whether there is anything to compare: a wrong scale was warned of, and the model knows the right one."""
    warned = any(one.rule in RULES and one.severity != "note" for one in findings)
    return warned and SCHEME in ready.model.schemes and ready.init != SCHEME and ledger.best is not None


def toll(ready: Ready, settings: Settings, ledger: Ledger) -> Toll:
    """Run the twin: the same samples in the same order, the same seed and settings, drawn by He's scheme.

    It runs until it has got as far as the first run did: an epoch in which every training sample was right, or else the first run's lowest
    mean loss of an epoch. It stops as well after as many epochs, or when its time is over.
    """
    assert ledger.best is not None
    goal_epoch, goal_loss = (ledger.overfit.epoch, None) if ledger.overfit else ledger.best
    seconds = min(max(ledger.seconds, _LEAST), _MOST)
    params = parameters(ready, settings, SCHEME)
    twin = Ledger(ready.steps_per_epoch, ready.batch_size, layout.of(params))
    state = OPTIMIZERS[settings.optimizer](settings.lr).init(params)
    until = time.perf_counter() + seconds
    for inputs, targets in batches(ready, settings.seed):
        if twin.entered >= goal_epoch * ready.steps_per_epoch or _arrived(twin, goal_loss) or time.perf_counter() > until:
            break
        params, state, metrics = ready.step(params, state, inputs, targets, params, False)
        twin.enter(metrics["vitals"])
    twin.settle()
    reached = _epoch(twin, goal_loss)
    return Toll(
        scheme=SCHEME,
        epoch=goal_epoch,
        loss=goal_loss,
        twin_epoch=reached,
        twin_epochs=twin.entered / ready.steps_per_epoch,
        complete=reached is not None or twin.entered >= goal_epoch * ready.steps_per_epoch,
    )


def _arrived(twin: Ledger, loss: float | None) -> bool:
    return _epoch(twin, loss) is not None


def _epoch(twin: Ledger, loss: float | None) -> int | None:
    """The epoch in which a run got as far; where its loss ended lower than asked, its best epoch is the first that did."""
    if loss is None:
        return twin.overfit.epoch if twin.overfit else None
    return twin.best[0] if twin.best is not None and twin.best[1] <= loss else None


def quietly(ready: Ready, settings: Settings, ledger: Ledger) -> Toll | None:
    """The toll, or nothing where the user has had enough."""
    try:
        return toll(ready, settings, ledger)
    except KeyboardInterrupt:
        return None
