"""What running the last calls again needs, and no more: the state before the first of them, and what each was given beside its state.

The state is whatever a call returned and the next one is given: see `links`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import is_, is_not

import jax
import numpy as np
from jax.core import Tracer

from nandetect import nonfinite
from nandetect.guarding import finite
from nandetect.guarding.links import Links, Pick, links, picker
from nandetect.guarding.working import working

# A metric: a result of at most so many elements. It is kept of every call, and those of all calls are looked at together.
SMALL = 16
# Bytes of a numpy array that is copied at once; larger ones when they are handed in again, which is how a buffer is filled anew.
_COPIED = 4096

flatten = jax.tree_util.default_registry.flatten

Arguments = tuple[tuple[object, ...], dict[str, object]]


@dataclass(slots=True)
class Call:
    """One recorded call. Its `number` counts the calls of its thread from 0; `order` tells which of several functions' calls came first.

    Its arguments are the leaves of `(args, kwargs)`, whose structure is `tree`; without a `tree`, they are the positional arguments
    themselves, and its results are the elements of the tuple that it returned (the returned thing itself where that `is_whole`).
    `kept` are the arguments that `links` does not find among the results of the call before; without `links`, all of them.
    `small` are its metrics, and `of_small(results)` picks them.
    """

    number: int
    order: int
    tree: Hashable | None
    kept: Sequence[object]
    links: Links | None
    small: Sequence[object] = ()
    of_small: Pick | None = None
    is_whole: bool = False

    def arguments(self, made: Sequence[object]) -> Arguments:
        """The arguments of this call, given the results of the call before."""
        given = self.kept if self.links is None else self.links.join(self.kept, made)
        return (tuple(given), {}) if self.tree is None else jax.tree.unflatten(self.tree, given)


@dataclass(slots=True)
class Window:
    """The calls since the results were last seen to be finite, the leaves that the last of them made, and how many bytes are kept."""

    calls: list[Call] = field(default_factory=list)
    made: Sequence[object] = ()
    size: int = 0


@dataclass(slots=True)
class Habits:
    """What was seen of a step: how its arguments follow from its results, leaf by leaf, and whether it changes them in place."""

    links: Links | None = None
    changes_arguments: bool = False
    # Whether any call is known to have changed the arrays of its state: one that evaluates never does.
    changes_state: bool = False
    # Whether a call may be made again for its results: of a function that is not compiled nobody knows what else it does.
    may_repeat: bool = True


class Recorder:
    """The calls of one thread. What the step donates, and whether it changes its arguments in place, is learned from its first call."""

    def __init__(self, may_donate: bool, keep: int):
        self.window = Window()
        self.habits = Habits()
        self._calls = 0
        self._may_donate, self._learned = may_donate, False
        # The indices of the arguments that the step donates; of those of which that is not known, since none was an array of JAX's yet (a
        # counter that begins as a Python number); and of the results that are known not to be finite.
        self._donated: frozenset[int] = frozenset()
        self._unknown: frozenset[int] = frozenset()
        self._excused: frozenset[int] = frozenset()
        self._keep = keep
        # How many results there were when the metrics among them were looked for, and what picks those.
        self._small: tuple[int, Pick] = (0, picker(()))
        self._sizes: dict[tuple[tuple[int, ...], np.dtype], int] = {}
        # By the index of the argument, the numpy array that was handed in last, and the copy that was kept of it.
        self._handed: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self._made: Sequence[object] = ()
        # The structure of the last call's arguments, one object for all calls that have it: little is to be allocated for each call.
        self._tree: Hashable = flatten(0)[1]

    @property
    def made(self) -> Sequence[object]:
        """The leaves that the last call made, as far as it was recorded leaf by leaf."""
        return self._made

    @property
    def is_plain(self) -> bool:
        """Whether a call's state goes in and comes out, and nothing else of it has to be copied."""
        held = self.habits.links
        return held is not None and not self.habits.changes_arguments and self._donated <= set(held.ins)

    def enter(self, order: int, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[Call, list[object]] | None:
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
        indices, given = (range(len(leaves)), leaves) if held is None else (held.kept, held.of_kept(leaves))
        # What the call before was given too is kept already.
        before = self.window.calls[-1] if held is not None else None
        new: Iterable[object] = given if before is None or before.links is not held else compress(given, map(is_not, given, before.kept))
        size = sum(map(self._size, new))
        copies = self.window.size + size <= self._keep
        kept = self.keep(indices, given, copies)
        self.window.size += size
        return Call(-1, order, tree, kept, held), leaves

    def leave(self, call: Call, leaves: list[object], out: object, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
        """A call has returned; whether it belongs to the window."""
        if not self._learned:
            self._learn(leaves, args, kwargs)
            call.kept = [leaf if _is_there(leaf) else kept for leaf, kept in zip(leaves, call.kept, strict=True)]
        elif self._unknown and not self.window.calls:
            self._see_donated(leaves)
        made = leaves_made(out, args, kwargs, self.habits.changes_arguments)
        if are_traced(made):
            return False
        if self._small[0] != len(made):
            self._small = self._metrics(made, ())
        call.of_small = self._small[1]
        call.small = call.of_small(made)
        self.add(call, made)
        return True

    def add(self, call: Call, made: Sequence[object]) -> None:
        """One more call, and the leaves that it made."""
        call.number, self._calls = self._calls, self._calls + 1
        self._made = self.window.made = made
        self.window.calls.append(call)

    def restart(self) -> None:
        """What was made so far is finite, or told: nothing of it is kept."""
        self.window = Window()

    def excuse(self, indices: frozenset[int]) -> None:
        """From now on, the results at these indices alone are no metrics: they are known to be not finite."""
        if indices != self._excused:
            self._excused = indices
            self._small = self._metrics(self._made, self.habits.links.outs if self.habits.links else ())

    def _metrics(self, made: Sequence[object], state: Sequence[int]) -> tuple[int, Pick]:
        """What is small among results of this number, and neither state, which is handed back, nor excused."""
        left_out = self._excused.union(state)
        return len(made), picker([index for index, leaf in enumerate(made) if index not in left_out and is_small(leaf)])

    def _link(self, leaves: list[object]) -> Links:
        held = self.habits.links
        # Where nothing was linked, nothing can fail to hold: look again at the beginning of each window.
        if held is None or not held.hold(leaves, self._made) or (not held.ins and len(self.window.calls) <= 1):
            held = self.habits.links = links(leaves, self._made, lambda leaf: isinstance(leaf, jax.Array))
            self._small = self._metrics(self._made, held.outs)
        return held

    def keep(self, indices: Sequence[int], leaves: Sequence[object], copies: bool = False) -> Sequence[object]:
        """These leaves of the arguments, as they will still be later. What the step takes is copied where there is room for `copies`."""
        may_take = not self._learned or self._donated or self._unknown
        if not may_take and not any(issubclass(kind, np.ndarray) for kind in set(map(type, leaves))):
            return leaves
        return [self._own(index, leaf, copies) for index, leaf in zip(indices, leaves, strict=True)]

    def _own(self, index: int, leaf: object, copies: bool) -> object:
        """A leaf that will still be what it is: copied where the step takes it, or where the program fills the same array again."""
        if isinstance(leaf, jax.Array):
            taken = index in self._donated or index in self._unknown or (self._may_donate and not self._learned)
            if not taken or not copies:
                return leaf
            # Where a whole program is watched, a copy would pass for one that the program made.
            with working:
                return nonfinite.copied(leaf)
        return self._own_array(index, leaf) if isinstance(leaf, np.ndarray) else leaf

    def _own_array(self, index: int, array: np.ndarray) -> np.ndarray:
        before, copy = self._handed.get(index, (None, None))
        is_same = before is array and array.flags.writeable
        if not self._learned or array.nbytes <= _COPIED or (is_same and (copy is None or not np.array_equal(copy, array))):
            copy = array.copy()
        elif not is_same:
            copy = None
        self._handed[index] = (array, copy)
        return array if copy is None else copy

    def _size(self, leaf: object) -> int:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return 0
        key = (leaf.shape, leaf.dtype)
        if key not in self._sizes:
            self._sizes[key] = leaf.size * leaf.dtype.itemsize
        return self._sizes[key]

    def _learn(self, leaves: list[object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._learned = True
        if self._may_donate:
            self._unknown = frozenset(range(len(leaves)))
            self._see_donated(leaves)
        after = flatten((args, kwargs))[0]
        self.habits.changes_arguments = len(after) != len(leaves) or not all(map(is_, after, leaves))

    def _see_donated(self, leaves: list[object]) -> None:
        """Learn of the arguments of a call that has returned which of them the step takes."""
        arrays = [(index, leaf) for index, leaf in enumerate(leaves) if index in self._unknown and isinstance(leaf, jax.Array)]
        self._donated |= {index for index, leaf in arrays if leaf.is_deleted()}
        self._unknown -= {index for index, _ in arrays}


def leaves_made(out: object, args: tuple[object, ...], kwargs: dict[str, object], changes_arguments: bool) -> list[object]:
    """The leaves that a call made: of its result and, for a step that changes its arguments in place (flax's nnx), of those."""
    made = flatten(out)[0]
    return made + flatten((args, kwargs))[0] if changes_arguments else made


def _is_there(leaf: object) -> bool:
    """Whether the step has left an argument as it was, so that no copy is needed: that array is the one which the program made."""
    return isinstance(leaf, jax.Array) and not leaf.is_deleted()


def are_traced(leaves: Sequence[object]) -> bool:
    """Whether any of many leaves is a tracer. They are of few types."""
    return any(issubclass(kind, Tracer) for kind in set(map(type, leaves)))


def is_small(leaf: object) -> bool:
    """Whether a result is a metric by its size."""
    return isinstance(leaf, jax.Array) and leaf.size <= SMALL and finite.can_be_bad(leaf)
