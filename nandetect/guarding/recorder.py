"""What a replay of the last calls needs, and no more: one state, and whatever else each call was given.

Most arguments of a training step are what its last call returned. They are recognised by identity and not kept: a replay makes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import is_, is_not, itemgetter
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from nandetect import nonfinite
from nandetect.guarding import finite

# The most elements of a result that is kept of every call, to be looked at with all the others: a metric.
SMALL = 16
# Bytes of a numpy array that is copied at once; larger ones when they are handed in again, which is how a buffer is filled anew.
_COPIED = 4096

flatten = jax.tree_util.default_registry.flatten
Pick = Callable[[Any], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Links:
    """Which parts of a call's arguments are parts of what the call before made: `ins[i]` is `outs[i]`. The others are kept."""

    size: int
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    kept: tuple[int, ...]
    of_in: Pick
    of_out: Pick
    of_kept: Pick

    def hold(self, given: Sequence[Any], made: Sequence[Any]) -> bool:
        """Whether these arguments are linked to those results in this very way."""
        return len(given) == self.size and max(self.outs, default=-1) < len(made) and all(map(is_, self.of_in(given), self.of_out(made)))

    def matcher(self) -> Callable[[Sequence[Any], Sequence[Any]], bool]:
        """`hold` for arguments of the right number, in a third of its time where a few are linked."""
        if len(self.ins) == 1:
            (i,), (o,) = self.ins, self.outs
            return lambda given, made: given[i] is made[o]
        if len(self.ins) == 2:
            (i, j), (o, p) = self.ins, self.outs
            return lambda given, made: given[i] is made[o] and given[j] is made[p]
        if len(self.ins) == 3:
            (i, j, k), (o, p, q) = self.ins, self.outs
            return lambda given, made: given[i] is made[o] and given[j] is made[p] and given[k] is made[q]
        return lambda given, made: all(map(is_, self.of_in(given), self.of_out(made)))

    def join(self, kept: Sequence[Any], made: Sequence[Any]) -> list[Any]:
        """All parts of the arguments again."""
        parts: list[Any] = [None] * self.size
        for at, part in zip(self.kept, kept, strict=True):
            parts[at] = part
        for at, source in zip(self.ins, self.outs, strict=True):
            parts[at] = made[source]
        return parts


def links(given: Sequence[Any], made: Sequence[Any], may_link: Callable[[Any], bool]) -> Links:
    """How arguments follow from the results before them."""
    place = {id(part): at for at, part in enumerate(made) if may_link(part)}
    ins = tuple(at for at, part in enumerate(given) if id(part) in place)
    outs = tuple(place[id(given[at])] for at in ins)
    kept = tuple(at for at in range(len(given)) if at not in ins)
    return Links(len(given), ins, outs, kept, picker(ins), picker(outs), picker(kept))


def picker(places: Sequence[int]) -> Pick:
    """A fast function from a sequence to its elements at these places."""
    if not places:
        return lambda parts: ()
    if len(places) == 1:
        at = places[0]
        return lambda parts: (parts[at],)
    return itemgetter(*places)


@dataclass(slots=True)
class Call:
    """One call: its number in its thread, what was kept of its arguments (without `links` all), its small results as `again` picks them.

    `order` tells which of the calls of several functions was first. The parts of the arguments are their leaves; without a `tree`, they are
    the positional arguments themselves, and those of the results are the elements of a tuple, unless it `is_whole`.
    """

    number: int
    order: int
    tree: Any
    kept: Sequence[Any]
    links: Links | None
    small: Sequence[Any] = ()
    again: Pick | None = None
    is_whole: bool = False

    def arguments(self, made: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of this call, given the parts of what the call before made."""
        parts = self.kept if self.links is None else self.links.join(self.kept, made)
        return (tuple(parts), {}) if self.tree is None else jax.tree.unflatten(self.tree, parts)


@dataclass(slots=True)
class Window:
    """The calls since the results were last found clean, what the last of them made, and the bytes that are kept."""

    calls: list[Call] = field(default_factory=list)
    made: Sequence[Any] = ()
    size: int = 0


@dataclass(slots=True)
class Habits:
    """What was seen of a step: how its arguments follow from its results, leaf by leaf, and whether it changes them in place."""

    links: Links | None = None
    changes_arguments: bool = False
    # Whether a call may be made again for its results: of a function that is not compiled nobody knows what else it does.
    may_repeat: bool = True


class Recorder:
    """The calls of one thread. What the step donates, and whether it changes its arguments in place, is learned from its first call."""

    def __init__(self, may_donate: bool, keep: int):
        self.window = Window()
        self.habits = Habits()
        self.calls = 0
        self._may_donate, self._learned = may_donate, False
        self._donated: frozenset[int] = frozenset()
        self._keep = keep
        self._small: tuple[int, Pick] = (0, picker(()))
        self._excused: frozenset[int] = frozenset()
        self._sizes: dict[Any, int] = {}
        self._handed: dict[int, tuple[Any, Any]] = {}
        self._made: Sequence[Any] = ()
        # The tree of the last call's arguments, shared by all calls that have it: of what is kept for each, little is to be new.
        self._tree: Any = flatten(0)[1]

    @property
    def is_plain(self) -> bool:
        """Whether a call's state goes in and comes out, and nothing else of it has to be copied."""
        links = self.habits.links
        return links is not None and not self.habits.changes_arguments and self._donated <= set(links.ins)

    def enter(self, order: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, list[Any]] | None:
        """Keep what a call needs, before it runs; also all its leaves. None while JAX traces: then another call encloses this one."""
        leaves, tree = flatten((args, kwargs))
        if are_traced(leaves):
            return None
        # A function that is not compiled may take what cannot be compared; of its calls there is never a second one.
        if self.window.calls and tree == self._tree:
            tree = self._tree
        self._tree = tree
        held = self._link(leaves)
        held = held if self.window.calls and held.ins else None
        places, parts = (range(len(leaves)), leaves) if held is None else (held.kept, held.of_kept(leaves))
        # What the call before was given too is kept already.
        before = self.window.calls[-1] if held is not None else None
        new = parts if before is None or before.links is not held else compress(parts, map(is_not, parts, before.kept))
        size = sum(map(self._size, new))
        copies = self.window.size + size <= self._keep
        kept = self.keep(places, parts, copies)
        self.window.size += size
        return Call(-1, order, tree, kept, held), leaves

    def leave(self, call: Call, leaves: list[Any], out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """A call has returned; whether it belongs to the window."""
        if not self._learned:
            self._learn(leaves, args, kwargs)
        made = parts_made(out, args, kwargs, self.habits.changes_arguments)
        if are_traced(made):
            return False
        if self._small[0] != len(made):
            self._small = self._metrics(made, ())
        call.again = self._small[1]
        call.small = call.again(made)
        self.add(call, made)
        return True

    def add(self, call: Call, made: Sequence[Any]) -> None:
        """One more call, and the leaves that it made."""
        call.number, self.calls = self.calls, self.calls + 1
        self._made = self.window.made = made
        self.window.calls.append(call)

    def restart(self) -> None:
        """What was made so far is clean, or told: nothing of it is kept."""
        self.window = Window()

    def excuse(self, places: frozenset[int]) -> None:
        """From now on, the results at these places alone are no metrics: they are known to be not finite."""
        if places != self._excused:
            self._excused = places
            self._small = self._metrics(self._made, self.habits.links.outs if self.habits.links else ())

    def _metrics(self, made: Sequence[Any], state: Sequence[int]) -> tuple[int, Pick]:
        """What is small among results of this number, and neither state, which is handed back, nor excused."""
        left_out = self._excused.union(state)
        return len(made), picker([at for at, leaf in enumerate(made) if at not in left_out and is_small(leaf)])

    def _link(self, leaves: list[Any]) -> Links:
        held = self.habits.links
        # Where nothing was linked, nothing can fail to hold: look again at the beginning of each window.
        if held is None or not held.hold(leaves, self._made) or (not held.ins and len(self.window.calls) <= 1):
            held = self.habits.links = links(leaves, self._made, lambda leaf: isinstance(leaf, jax.Array))
            self._small = self._metrics(self._made, held.outs)
        return held

    def keep(self, places: Sequence[int], parts: Sequence[Any], copies: bool = False) -> Sequence[Any]:
        """These leaves of the arguments, as they will still be later. What the step takes is copied where there is room for `copies`."""
        if self._learned and not self._donated and not any(issubclass(kind, np.ndarray) for kind in set(map(type, parts))):
            return parts
        return [self._own(at, leaf, copies) for at, leaf in zip(places, parts, strict=True)]

    def _own(self, at: int, leaf: Any, copies: bool) -> Any:
        """A leaf that will still be what it is: copied where the step takes it, or where the program fills the same array again."""
        if isinstance(leaf, jax.Array):
            taken = at in self._donated or (self._may_donate and not self._learned)
            return nonfinite.copied(leaf) if taken and copies else leaf
        return self._own_array(at, leaf) if isinstance(leaf, np.ndarray) else leaf

    def _own_array(self, at: int, array: np.ndarray) -> np.ndarray:
        before, copy = self._handed.get(at, (None, None))
        again = before is array and array.flags.writeable
        if not self._learned or array.nbytes <= _COPIED or (again and (copy is None or not np.array_equal(copy, array))):
            copy = array.copy()
        elif not again:
            copy = None
        self._handed[at] = (array, copy)
        return array if copy is None else copy

    def _size(self, leaf: Any) -> int:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return 0
        key = (leaf.shape, leaf.dtype)
        if key not in self._sizes:
            self._sizes[key] = leaf.size * leaf.dtype.itemsize
        return self._sizes[key]

    def _learn(self, leaves: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._learned = True
        if self._may_donate:
            self._donated = frozenset(at for at, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) and leaf.is_deleted())
        again = flatten((args, kwargs))[0]
        self.habits.changes_arguments = len(again) != len(leaves) or not all(map(is_, again, leaves))


def parts_made(out: Any, args: tuple[Any, ...], kwargs: dict[str, Any], changes_arguments: bool) -> list[Any]:
    """The leaves that a call made: of its result and, for a step that changes its arguments in place (flax's nnx), of those."""
    made = flatten(out)[0]
    return made + flatten((args, kwargs))[0] if changes_arguments else made


def are_traced(leaves: Sequence[Any]) -> bool:
    """Whether any of many leaves is a tracer. They are of few types."""
    return any(issubclass(kind, Tracer) for kind in set(map(type, leaves)))


def is_small(leaf: Any) -> bool:
    """Whether a result is a metric by its size."""
    return isinstance(leaf, jax.Array) and leaf.size <= SMALL and finite.can_be_bad(leaf)
