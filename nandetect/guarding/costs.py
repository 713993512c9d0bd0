"""What watching a guarded step has cost: the sum of the tallies that its threads keep."""

from __future__ import annotations

from collections.abc import Sequence

from nandetect.guarding.guarded_step import GuardedStep
from nandetect.guarding.quick import quick_seconds
from nandetect.records import Cost


def cost(guarded: GuardedStep) -> Cost:
    """What watching has cost so far."""
    tallies = [*guarded.past, *(watch.tally for watch in guarded.watches)]
    # Calls that were recorded the quick way and are in no tally yet.
    waiting = [watch.quick for watch in guarded.watches if watch.quick is not None]
    untimed = sum(tally.quick for tally in tallies) + sum(len(quick) for quick in waiting if quick.tree is None)
    recording = sum(tally.recording for tally in tallies) + quick_seconds() * untimed
    seconds = recording + sum(tally.looking for tally in tallies)
    replaying = sum(tally.replaying for tally in tallies)
    beside = sum(tally.last - tally.began for tally in tallies) - seconds - replaying
    kept = sum(watch.recorder.window.size for watch in guarded.watches) + sum(quick.bytes * len(quick) for quick in waiting)
    return Cost(
        calls=sum(tally.calls for tally in tallies) + sum(map(len, waiting)),
        looks=sum(tally.looks for tally in tallies),
        replays=sum(tally.replays for tally in tallies),
        seconds=seconds,
        share=seconds / beside if beside > 0 else 0.0,
        replay_seconds=replaying,
        kept_bytes=kept,
        most_bytes=max([kept, *(tally.most for tally in tallies)]),
        # To ask for it starts the backend, which a program whose functions were never called may still have to set up.
        bound_bytes=guarded.bound if tallies else 0,
    )


def last_call(guarded: GuardedStep) -> float:
    """When the step was called last, as far as is known."""
    return max([0.0, *(tally.last for tally in guarded.past), *(watch.tally.last for watch in guarded.watches)])


def added(costs: Sequence[Cost]) -> Cost:
    """Costs of several functions as one; the share of the time is left to who knows the whole time."""
    return Cost(
        calls=sum(cost.calls for cost in costs),
        looks=sum(cost.looks for cost in costs),
        replays=sum(cost.replays for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        replay_seconds=sum(cost.replay_seconds for cost in costs),
        kept_bytes=sum(cost.kept_bytes for cost in costs),
        most_bytes=max(cost.most_bytes for cost in costs),
        bound_bytes=max(cost.bound_bytes for cost in costs),
    )
