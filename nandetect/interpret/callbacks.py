"""Effects run once: the callbacks of a step are recorded while it runs, and a replay is given what they returned then.

Each callback of the program is replaced by a `Take`, which stands in the compiled loops of a replay as well as in its equations. What only
prints (`jax.debug`) is left out of replays altogether: see `compat.bind`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from nandetect import compat, primitives
from nandetect.annotations import Array, Pytree
from nandetect.compat import JaxprEqn
from nandetect.program.trace import Program


@dataclass(eq=False)
class Take:
    """One callback of the program: what it returned at each call of the one true run, and how many of those a replay has used.

    While `playing`, it returns those in place of calling; one that is `silent` is not called at all.
    """

    callback: Callable[..., Pytree]
    silent: bool = False
    returned: list[list[np.ndarray]] = field(default_factory=list)
    playing: bool = False
    used: int = 0

    def __call__(self, *args: Array) -> list[np.ndarray]:
        if self.playing and self.returned:
            self.used += 1
            return self.returned[min(self.used, len(self.returned)) - 1]
        if self.silent:
            return []
        result = [np.array(x) for x in jax.tree.leaves(self.callback(*args))]
        self.returned.append(result)
        return result


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


def recorded(program: Program, repeat: bool = True) -> Program:
    """The program with its callbacks on tape; itself where it has none. Without `repeat`, those that only have an effect are not called."""
    tape = Tape()
    jaxpr = compat.rewritten(program.jaxpr, lambda eqn: _taped(eqn, tape, repeat))
    if not tape.takes:
        return program

    def call() -> list[Array]:
        outcome = jax.jit(compat.as_function(jaxpr, program.consts))(*program.args)
        jax.block_until_ready(outcome)
        jax.effects_barrier()
        return outcome

    return replace(program, jaxpr=jaxpr, call=call, tape=tape)


def _taped(eqn: JaxprEqn, tape: Tape, repeat: bool) -> JaxprEqn:
    if not primitives.of(eqn).calls_back:
        return eqn
    tape.takes.append(Take(eqn.params["callback"], silent=not repeat and not eqn.outvars))
    return eqn.replace(params={**eqn.params, "callback": tape.takes[-1]})
