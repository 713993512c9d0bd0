"""What watching a guarded step has cost: the tally that each thread keeps, and the sum of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nandetect.guarding.quick import quick_seconds
from nandetect.records import Cost

if TYPE_CHECKING:
    from nandetect.guarding.shared import Shared


@dataclass(slots=True)
class Tally:
    """What watching took in one thread, in seconds. Quick calls are counted and not timed: see `quick_seconds`.

    `began` is when the thread's first call did, `last` when its last one was seen; `most` are the most bytes that were kept.
    """

    began: float
    last: float
    calls: int = 0
    quick: int = 0
    looks: int = 0
    replays: int = 0
    recording: float = 0.0
    looking: float = 0.0
    replaying: float = 0.0
    most: int = 0

    def looked(self, began: float, ended: float, kept: int) -> None:
        """One more look, at calls for which so many bytes were kept."""
        self.last = ended
        self.looking += ended - began
        self.looks += 1
        self.most = max(self.most, kept)


def cost(shared: Shared) -> Cost:
    """What watching has cost so far."""
    tallies = [*shared.past, *(watch.tally for watch in shared.watches)]
    # Calls that were recorded the quick way and are in no tally yet.
    waiting = [watch.quick for watch in shared.watches if watch.quick is not None]
    untimed = sum(tally.quick for tally in tallies) + sum(len(quick) for quick in waiting if quick.tree is None)
    recording = sum(tally.recording for tally in tallies) + quick_seconds() * untimed
    seconds = recording + sum(tally.looking for tally in tallies)
    replaying = sum(tally.replaying for tally in tallies)
    beside = sum(tally.last - tally.began for tally in tallies) - seconds - replaying
    kept = sum(watch.recorder.window.size for watch in shared.watches) + sum(quick.bytes * len(quick) for quick in waiting)
    return Cost(
        calls=sum(tally.calls for tally in tallies) + sum(map(len, waiting)),
        looks=sum(tally.looks for tally in tallies),
        replays=sum(tally.replays for tally in tallies),
        seconds=seconds,
        share=seconds / beside if beside > 0 else 0.0,
        replay_seconds=replaying,
        kept_bytes=kept,
        most_bytes=max([kept, *(tally.most for tally in tallies)]),
        bound_bytes=shared.bound,
    )


def last_call(shared: Shared) -> float:
    """When the step was called last, as far as is known."""
    return max([0.0, *(tally.last for tally in shared.past), *(watch.tally.last for watch in shared.watches)])


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
