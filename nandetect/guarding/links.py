"""How the arguments of a call follow from the results of the call before.

Most arguments of a training step are what its last call returned. They are recognised by identity, so they need not be kept: running that
call again makes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_, itemgetter

# Picks some of the parts of a sequence.
Pick = Callable[[Sequence[object]], tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Links:
    """Which of `size` arguments are results of the call before: argument `ins[i]` is result `outs[i]`. The arguments at `kept` are not.

    `of_in(arguments)`, `of_out(results)` and `of_kept(arguments)` pick what stands at those indices.
    """

    size: int
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    kept: tuple[int, ...]
    of_in: Pick
    of_out: Pick
    of_kept: Pick

    def hold(self, given: Sequence[object], made: Sequence[object]) -> bool:
        """Whether these arguments are linked to those results in this very way."""
        return len(given) == self.size and max(self.outs, default=-1) < len(made) and all(map(is_, self.of_in(given), self.of_out(made)))

    def matcher(self) -> Callable[[Sequence[object], Sequence[object]], bool]:
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

    def join(self, kept: Sequence[object], made: Sequence[object]) -> list[object]:
        """All arguments again, from those that were kept and the results of the call before."""
        given: list[object] = [None] * self.size
        for index, argument in zip(self.kept, kept, strict=True):
            given[index] = argument
        for index, source in zip(self.ins, self.outs, strict=True):
            given[index] = made[source]
        return given


def links(given: Sequence[object], made: Sequence[object], may_link: Callable[[object], bool]) -> Links:
    """How these arguments follow from the results before them; only results that `may_link` are looked for."""
    sources = {id(result): index for index, result in enumerate(made) if may_link(result)}
    ins = tuple(index for index, argument in enumerate(given) if id(argument) in sources)
    outs = tuple(sources[id(given[index])] for index in ins)
    kept = tuple(index for index in range(len(given)) if index not in ins)
    return Links(len(given), ins, outs, kept, picker(ins), picker(outs), picker(kept))


def picker(indices: Sequence[int]) -> Pick:
    """A fast function from a sequence to what stands at these indices of it."""
    if not indices:
        return lambda parts: ()
    if len(indices) == 1:
        index = indices[0]
        return lambda parts: (parts[index],)
    return itemgetter(*indices)
