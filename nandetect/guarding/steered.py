"""Calls whose results were all finite, and of which it is asked once, at the end, whether a NaN steered them.

It costs compiling the step once more, so that it is not asked of every call: of one thread's calls the first that was looked at is kept,
and the latest. Where nothing was asked, nothing is claimed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import jax
import numpy as np

from nandetect import compat, effects, findings
from nandetect.annotations import Pytree
from nandetect.guarding.aside import numbered
from nandetect.guarding.recorder import Call, Habits, Window, flatten
from nandetect.guarding.roles import auxiliary
from nandetect.guarding.working import working
from nandetect.interpret import callbacks
from nandetect.program.trace import Program, trace
from nandetect.records import Finding, Report
from nandetect.speed.compilations import Compilations

# The most bytes of a call that is kept.
_KEPT = 2**24
# The share of a program's time that asking may take, and the seconds that it always may.
SHARE, LEAST = 0.02, 3.0


class Steered:
    """The calls of one thread of which it is still to be asked."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        # The shapes of what the first of them returned, and what was learned of the step since.
        self._out: Pytree = None
        self._habits = Habits()
        # How many programs were compiled when the step was seen to be one in which no number decides, and the seconds that asking took.
        self._undecided, self._spent = -1, 0.0

    def see(self, window: Window, habits: Habits, out: Pytree) -> None:
        """The results of these calls are finite; the last of them returned `out`."""
        call = window.calls[0]
        if habits.may_repeat and not habits.changes_arguments and call.links is None and _bytes(call) <= _KEPT:
            if not self._calls:
                self._out = jax.tree.map(_shape, out)
            self._calls, self._habits = [*self._calls[:1], call], habits

    def __bool__(self) -> bool:
        return bool(self._calls)

    def finding(self, step: Callable[..., object], compilations: Compilations, most: float) -> Finding | None:
        """What is to be told of the first of them that a NaN steered; none where asking would take more than so many seconds, all told."""
        calls, self._calls = self._calls, []
        most, compiled = most - self._spent, len(compilations.all)
        if not calls or compiled == self._undecided or max((compilation.seconds for compilation in compilations.all), default=0.0) > most:
            return None
        began = time.perf_counter()
        try:
            return self._asked(calls, step, compiled, most)
        finally:
            self._spent += time.perf_counter() - began

    def _asked(self, calls: Sequence[Call], step: Callable[..., object], compiled: int, most: float) -> Finding | None:
        with working, compat.outside_of_traces(), effects.replay_settings(), effects.muted_effects():
            for call in calls:
                args, kwargs = call.arguments(())
                if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in flatten((args, kwargs))[0]):
                    continue
                program = trace(step, args, kwargs)
                if not decides(program):
                    self._undecided = compiled
                    return None
                report = asked(program, most, self._beside(flatten((args, kwargs))[0]))
                if report is not None:
                    return findings.steered(numbered(report, call))
        return None

    def _beside(self, given: Sequence[object]) -> frozenset[int]:
        """The numbers of the results, arrays all, that are auxiliary."""
        beside = auxiliary(self._out, self._habits.links, given)
        arrays = [index for index, leaf in enumerate(flatten(self._out)[0]) if isinstance(leaf, jax.ShapeDtypeStruct)]
        return frozenset(number for number, index in enumerate(arrays) if index in beside)


def asked(program: Program, most: float, beside: Collection[int] = ()) -> Report | None:
    """Where the NaN was born that steered a program; None where none did, and where what it calls back to could not be called again.

    Its results `beside` are left out; it takes some times the `most` seconds where a NaN is known to have been compared. What is pure may
    be called back to as often as one likes, a check of equinox's that is to raise among it.
    """
    # Only now: whoever has nothing to ask does not wait for all that locating needs to be imported.
    from nandetect.locating.steered import steered

    if not decides(program) or not callbacks.are_pure(program.jaxpr):
        return None
    return steered(callbacks.recorded(program, tried=True), beside, most)


def decides(program: Program) -> bool:
    """Whether numbers that a program compares may decide what it does."""
    from nandetect.locating.steered import may_be_steered

    return may_be_steered(program.jaxpr)


def _shape(leaf: object) -> object:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf


def _bytes(call: Call) -> int:
    return sum(leaf.nbytes for leaf in call.kept if isinstance(leaf, jax.Array | np.ndarray))
