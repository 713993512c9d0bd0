"""Short calls that are all alike, recorded in about 3 microseconds each: a step of a millisecond would feel more than that."""

from __future__ import annotations

import functools
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from nandetect.guarding.links import Links, links, picker
from nandetect.guarding.recorder import Call, Recorder, flatten, is_small
from nandetect.guarding.screen import top

# Calls that take less than this, in seconds, are recorded by their positional arguments and not by every leaf of them.
QUICK = 3e-3
_TRIES = 500


class QuickCalls:
    """Calls of one kind, one after another: what each was given beside its state, and its metrics.

    A call belongs to them where `goes_on(arguments, made)`: its state is what the last call `made`. `of_kept(arguments)` and
    `of_small(results)` pick what is recorded of it. Arguments and results are those of `Call`: leaves where there is a `tree`. `size` is
    the number of arguments, `width` that of results, `left` the number of calls until the next look.

    `calls` is one flat list, of `stride` items for each call (its order, what is kept, its metrics): an object of its own for each call
    would make Python's garbage collector start more often, and visit it each time.
    """

    __slots__ = ("bytes", "calls", "goes_on", "is_whole", "left", "links", "made", "of_kept", "of_small", "size", "stride", "tree", "width")

    def __init__(
        self,
        links: Links,
        small: Sequence[int],
        made: Sequence[object],
        left: int,
        bytes: int = 0,
        is_whole: bool = False,
        tree: Hashable | None = None,
    ):
        self.links, self.goes_on, self.of_kept = links, links.matcher(), links.of_kept
        # The number of positional arguments; no call has -1 of them, so that those taken leaf by leaf go the longer way.
        self.size = links.size if tree is None else -1
        self.of_small, self.made, self.is_whole, self.left, self.bytes = picker(small), made, is_whole, left, bytes
        self.stride, self.tree, self.width = 1 + len(links.kept) + len(small), tree, len(made)
        self.calls: list[Any] = []

    def __len__(self) -> int:
        return len(self.calls) // self.stride

    def call(self, order: int, kept: Sequence[object], small: Sequence[object] = ()) -> Call:
        """One such call by itself, not yet numbered; without metrics where it did not return what the others did."""
        return Call(-1, order, self.tree, kept, self.links, small, self.of_small if small else None, self.is_whole)

    def recorded(self) -> Iterator[Call]:
        """All of these calls, each by itself."""
        beside = 1 + len(self.links.kept)
        for begin in range(0, len(self.calls), self.stride):
            order, *kept = self.calls[begin : begin + beside]
            yield self.call(order, kept, self.calls[begin + beside : begin + self.stride])


def calls_like(
    call: Call, args: tuple[object, ...], kwargs: dict[str, object], out: object, before: object, recorder: Recorder, calls: int, room: int
) -> QuickCalls | None:
    """The calls that follow this one, if they will be like it; None where the quick way is not worth it or does not fit.

    The call returned `out`, and the call before it `before`. There will be about so many `calls` with this one, and `room` bytes for them.
    """
    # A state that is one tuple (a NamedTuple) comes back as one argument; a tuple of results is taken apart into its parts.
    is_whole, tree = any(arg is before for arg in args) or not isinstance(out, tuple), None
    given, made = args, top(out, is_whole)
    linked = links(args, top(before, is_whole), lambda part: not isinstance(part, bool | int | float | str | None))
    if kwargs or not linked.ins or not all(isinstance(part, jax.Array | float | int) for part in linked.of_kept(args)):
        # Taken apart and put together anew (a dictionary of the batch, or a state that the step's jit flattens): leaf by leaf.
        held = recorder.habits.links
        if held is None or not held.ins:
            return None
        given, made, linked, is_whole, tree = call.kept, recorder.window.made, held, False, call.tree
    small = [index for index, part in enumerate(made) if index not in linked.outs and all(map(is_small, flatten(part)[0]))]
    size = sum(part.nbytes for part in linked.of_kept(given) if isinstance(part, jax.Array | np.ndarray))
    calls = min(calls, int(room / max(size, 1)))
    return QuickCalls(linked, small, made, calls - 1, size, is_whole, tree) if calls > 2 else None


@functools.cache
def quick_seconds() -> float:
    """What recording one quick call takes, measured where it is first asked for; to time each would cost more than that."""
    parts = tuple(object() for _ in range(4))
    linked = links(parts, parts[:2], lambda part: True)
    quick = QuickCalls(linked, [1], parts[:2], _TRIES)
    began = time.perf_counter()
    for order in range(_TRIES):
        if quick.goes_on(parts, quick.made):
            quick.made = made = parts[:2]
            quick.calls += (order, *quick.of_kept(parts), *quick.of_small(made))
            quick.left -= 1
    return (time.perf_counter() - began) / _TRIES
