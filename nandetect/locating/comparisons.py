"""Equations that go by numbers: what is compared decides, and a NaN that is compared misleads where it was not asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret import walk
from nandetect.interpret.marks import Mark, any_of


@dataclass(frozen=True)
class Sought:
    """Comparisons of NaN, those of equations aside that are `known`, by their ids; with `tests`, also whether something is one.

    They are looked for `until` a time of `time.perf_counter`.
    """

    known: frozenset[int] = frozenset()
    tests: bool = False
    until: float = math.inf

    @property
    def is_late(self) -> bool:
        """Whether nothing more is to be begun."""
        return time.perf_counter() > self.until

    def without(self, eqns: Iterable[JaxprEqn]) -> Sought:
        """The others."""
        return replace(self, known=self.known.union(map(id, eqns)))

    @property
    def mark(self) -> Mark:
        """Where one is made, also in a loop's condition."""
        return Mark(self._at, in_conditions=True)

    def _at(self, eqn: JaxprEqn, ins: Sequence[Array], outs: Sequence[Array]) -> jax.Array | None:
        if id(eqn) in self.known or compat.sub_jaxprs(eqn) or not _goes_by(eqn) or (is_test(eqn) and not self.tests):
            return None
        return any_of(jnp.isnan(x) for x in ins if nonfinite.is_inexact(x))


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
