"""Equations that go by numbers: what is compared decides, and a NaN that is compared misleads where it was not asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import AnyJaxpr, JaxprEqn
from nandetect.interpret import marks, walk
from nandetect.interpret.loops import Loop
from nandetect.interpret.marks import Mark, any_of
from nandetect.program.trace import Program

# Where something stands in a run: the numbers of equations, and of iterations, outermost first.
Order: TypeAlias = tuple[int, ...]
# The most iterations of a loop that are looked into, since what is compared in the first ones may decide nothing.
_ITERATIONS = 4


@dataclass(frozen=True)
class Sought:
    """Comparisons of NaN, but those at places in the run that are `known`; with `tests`, also whether something is one.

    They are looked for `until` a time of `time.perf_counter`. Whoever looks for others after them looks into no iteration again.
    """

    known: frozenset[Order] = frozenset()
    tests: bool = False
    until: float = math.inf
    # The iterations of each loop that are to be looked into, by where it stands in the run.
    _left: dict[Order, list[int]] = field(default_factory=dict, compare=False)

    @property
    def is_late(self) -> bool:
        """Whether nothing more is to be begun."""
        return time.perf_counter() > self.until

    def without(self, places: Iterable[Order]) -> Sought:
        """The others."""
        return replace(self, known=self.known.union(places))

    def are_in(self, program: Program) -> bool:
        """Whether any is made anywhere in a run of a program."""
        ids = self._ids(program.jaxpr)
        return bool(ids) and bool(marks.happens(program, _mark(ids)).any())

    def iterations(self, loop: Loop, order: Order) -> Iterator[int]:
        """The iterations of a loop, which stands there in the run, in which one is to be looked for.

        Of each comparison the first, the last with none right before it, and the last.
        """
        if order not in self._left:
            ids = self._ids(loop.body, loop.test)
            first, begun, last = marks.when(loop, _mark(ids)) if ids else np.full((3, 0), -1)
            steps = dict.fromkeys([*sorted(first), *sorted(begun), *sorted(last, reverse=True)])
            self._left[order] = [int(step) for step in steps if step >= 0][:_ITERATIONS]
        while left := self._left[order]:
            yield left.pop(0)

    def _ids(self, *programs: AnyJaxpr | None) -> list[int]:
        """The ids of all equations in these that may make one, each once: two calls of one function share its equations."""
        found: dict[int, None] = {}
        for eqn in (eqn for program in programs if program is not None for eqn in compat.open_jaxpr(program)[0].eqns):
            subs = [sub for _, sub in compat.sub_jaxprs(eqn)]
            found |= dict.fromkeys(self._ids(*subs))
            if not subs and _goes_by(eqn) and (self.tests or not is_test(eqn)):
                found[id(eqn)] = None
        return list(found)


def _mark(ids: Sequence[int]) -> Mark:
    """Where each of these equations is given a NaN, also in a loop's condition."""

    def at(eqn: JaxprEqn, ins: Sequence[Array], outs: Sequence[Array]) -> jax.Array | None:
        if id(eqn) not in ids:
            return None
        return any_of(jnp.isnan(x) for x in ins if nonfinite.is_inexact(x)) & (np.array(ids) == id(eqn))

    return Mark(at, in_conditions=True, kinds=len(ids))


def compares(eqn: JaxprEqn) -> bool:
    """Whether an equation makes of numbers what is none, a truth value or an index, and does not ask whether they are finite."""
    return _goes_by(eqn) and not is_test(eqn)


def _goes_by(eqn: JaxprEqn) -> bool:
    inexact = any(nonfinite.is_inexact(atom.aval) for atom in eqn.invars)
    return inexact and not any(nonfinite.is_inexact(var.aval) for var in eqn.outvars) and bool(eqn.outvars)


def is_test(eqn: JaxprEqn) -> bool:
    """Whether an equation asks whether something is non-finite: it is not misled by what it is given."""
    infinite = any(isinstance(atom, compat.Literal) and not nonfinite.is_clean(walk.literal(atom)) for atom in eqn.invars)
    return primitives.of(eqn).tests or infinite or (len(eqn.invars) == 2 and eqn.invars[0] is eqn.invars[1])
