"""Effects run once: the callbacks of a step are recorded while it runs, and a replay is given what they returned then.

Each callback of the program is replaced by a `Take`, which stands in the compiled loops of a replay as well as in its equations. What only
prints (`jax.debug`) is left out of replays altogether: see `compat.bind`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from nandetect import compat, effects, primitives
from nandetect.annotations import Array, Pytree
from nandetect.compat import AnyJaxpr, Jaxpr, JaxprEqn
from nandetect.program.trace import Program

# By the number of each branch of a choice, the branch that stands for it; None for a choice that is as it was.
Chosen = Sequence[int] | None


@dataclass(eq=False)
class Take:
    """One callback of the program: what it returned at each call of the one true run, and how many of those a replay has used.

    While `playing`, it returns those in place of calling; one that is `silent` is not called at all. What it `raised` while it was `tried`
    does not stop the program; it gives zeros then, and so does every other of the `program`: the true run was at its end there, and what
    would come after it (equinox waits at a prompt) is not called. A replay with other values may come where the true run did not: one that
    `acts` on the host is not called there either, and what another raises there is no failure of the program's.
    """

    callback: Callable[..., Pytree]
    avals: Sequence[effects.Aval]
    acts: bool = False
    silent: bool = False
    tried: bool = False
    returned: list[list[np.ndarray]] = field(default_factory=list)
    playing: bool = False
    used: int = 0
    raised: bool = False
    program: Sequence[Take] = ()

    def __call__(self, *args: Array) -> Sequence[np.ndarray]:
        if self.playing and self.returned:
            self.used += 1
            return self.returned[min(self.used, len(self.returned)) - 1]
        if self.silent:
            return []
        if self.playing:
            return self._elsewhere(args)
        if self.tried and any(take.raised for take in self.program):
            return self._zeros()
        try:
            result = self._called(args)
        except Exception:
            if not self.tried:
                raise
            self.raised = True
            result = self._zeros()
        self.returned.append(result)
        return result

    def _elsewhere(self, args: Sequence[Array]) -> Sequence[np.ndarray]:
        """What is returned where the true run did not come."""
        try:
            return effects.stood_in_for(args, self.avals) if self.acts else self._called(args)
        except Exception:
            return effects.stood_in_for(args, self.avals)

    def _called(self, args: Sequence[Array]) -> list[np.ndarray]:
        return [np.array(x) for x in jax.tree.leaves(self.callback(*args))]

    def _zeros(self) -> list[np.ndarray]:
        return [np.zeros(aval.shape, aval.dtype) for aval in self.avals]


@dataclass
class Tape:
    """The takes of a program, one for each of its callbacks."""

    takes: list[Take] = field(default_factory=list)

    def position(self) -> list[int]:
        """How many returned values of each take have been used; `seek` brings a replay back there."""
        if self.takes:
            jax.effects_barrier()
        return [take.used for take in self.takes]

    def seek(self, position: list[int]) -> None:
        if self.takes:
            jax.effects_barrier()
        for take, used in zip(self.takes, position, strict=True):
            take.used = used

    def rewind(self) -> None:
        """Start a replay."""
        self.seek([0] * len(self.takes))
        for take in self.takes:
            take.playing = True


def recorded(program: Program, repeat: bool = True, tried: bool = False) -> Program:
    """The program with its callbacks on tape; itself where it has none. Without `repeat`, those that only have an effect are not called.

    With `tried`, one that raises does not stop the program: see `without_checks`.
    """
    tape = Tape()
    jaxpr = compat.rewritten(program.jaxpr, lambda eqn: _taped(eqn, tape, repeat, tried))
    if not tape.takes:
        return program

    return replace(program, jaxpr=jaxpr, call=_call(jaxpr, program), tape=tape)


def _call(jaxpr: Jaxpr, program: Program) -> Callable[[], list[Array]]:
    def call() -> list[Array]:
        outcome = jax.jit(compat.as_function(jaxpr, program.consts))(*program.args)
        jax.block_until_ready(outcome)
        jax.effects_barrier()
        return outcome

    return call


def without_checks(program: Program) -> tuple[Program, bool]:
    """A recorded program that goes on where a callback of it raises, and whether one does.

    A branch that raises (`error_if` of equinox is one) is replaced by another that does not: it would have been taken had all been well.
    """
    takes = program.tape.takes if isinstance(program.tape, Tape) else []
    raised: set[int] = set()
    passes: list[list[Chosen]] = []
    retrace, outcome = program.retrace, program.call()
    while new := {id(take) for take in takes if take.raised} - raised:
        raised |= new
        for take in takes:
            take.raised = False
        passes.append([])
        jaxpr = compat.rewritten(program.jaxpr, functools.partial(_spared, raised=frozenset(raised), spared=passes[-1]))
        program = replace(program, jaxpr=jaxpr, call=_call(jaxpr, program))
        outcome = program.call()
    # Who traces it once more is to find the same program.
    again = None if retrace is None else lambda *how: _spared_alike(retrace(*how), passes)
    return replace(program, call=lambda: outcome, retrace=again), bool(raised)


def _spared(eqn: JaxprEqn, raised: Collection[int], spared: list[Chosen]) -> JaxprEqn:
    """A choice between branches whose branches that raise are replaced by one that does not.

    Enters in `spared` which branch stands for each, or None where none is replaced.
    """
    branches = eqn.params.get("branches")
    if branches is None:
        return eqn
    raising = [_calls(compat.open_jaxpr(branch)[0], raised) for branch in branches]
    if all(raising) or not any(raising):
        spared.append(None)
        return eqn
    sound = raising.index(False)
    numbers = [sound if bad else number for number, bad in enumerate(raising)]
    spared.append(numbers)
    return _with_branches(eqn, numbers)


def _spared_alike(jaxpr: AnyJaxpr, passes: Sequence[Sequence[Chosen]]) -> Jaxpr:
    """The same done to another trace of a program, choice by choice."""
    again, _ = compat.open_jaxpr(jaxpr)
    for spared in passes:
        numbers = iter(spared)

        def alike(eqn: JaxprEqn, numbers: Iterator[Chosen] = numbers) -> JaxprEqn:
            chosen = next(numbers, None) if "branches" in eqn.params else None
            return eqn if chosen is None else _with_branches(eqn, chosen)

        again = compat.rewritten(again, alike)
    return again


def _with_branches(eqn: JaxprEqn, numbers: Sequence[int]) -> JaxprEqn:
    branches = eqn.params["branches"]
    return eqn.replace(params={**eqn.params, "branches": tuple(branches[number] for number in numbers)})


def is_spared(eqn: JaxprEqn) -> bool:
    """Whether an equation is a check that `without_checks` took the failing branch from."""
    branches = eqn.params.get("branches", ())
    return len({id(branch) for branch in branches}) < len(branches)


def are_pure(jaxpr: Jaxpr) -> bool:
    """Whether a program calls back to nothing that has an effect, but for what only prints."""
    own = (eqn.primitive.name == "pure_callback" for eqn in jaxpr.eqns if primitives.of(eqn).calls_back)
    return all(own) and all(are_pure(compat.open_jaxpr(sub)[0]) for eqn in jaxpr.eqns for _, sub in compat.sub_jaxprs(eqn))


def _calls(jaxpr: Jaxpr, takes: Collection[int]) -> bool:
    """Whether one of these takes stands in a jaxpr or in one within it."""
    inner = (compat.open_jaxpr(sub)[0] for eqn in jaxpr.eqns for _, sub in compat.sub_jaxprs(eqn))
    return any(id(eqn.params.get("callback")) in takes for eqn in jaxpr.eqns) or any(_calls(sub, takes) for sub in inner)


def _taped(eqn: JaxprEqn, tape: Tape, repeat: bool, tried: bool) -> JaxprEqn:
    if not primitives.of(eqn).calls_back:
        return eqn
    avals = [compat.aval(var) for var in eqn.outvars]
    take = Take(eqn.params["callback"], avals, bool(eqn.effects), silent=not repeat and not avals, tried=tried, program=tape.takes)
    tape.takes.append(take)
    return eqn.replace(params={**eqn.params, "callback": take})
