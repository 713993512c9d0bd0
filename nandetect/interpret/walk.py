"""Run a jaxpr equation by equation, and keep the value of every variable: one loop, `run`, and a table of how each primitive is entered.

A rule of the table returns `Inside`, a jaxpr to run in place of the equation, or None, where the equation runs whole, as a leaf.
Loops are leaves: they run compiled, and `loops` replays the one iteration that matters. So is `shard_map`: see `shards`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from nandetect import compat, effects, nonfinite, primitives
from nandetect.annotations import Array, Pytree, Tape
from nandetect.compat import AnyJaxpr, Atom, Jaxpr, JaxprEqn, Var
from nandetect.interpret import ieee, meshes
from nandetect.interpret.movement import MOVES
from nandetect.program.trace import Program
from nandetect.registry import Registry

# Bytes of new values (1 GiB) after which a run lets go of those that nothing needs any more.
BUDGET = 1 << 30


@dataclass(frozen=True, slots=True)
class Inside:
    """A jaxpr to run in place of its equation: `operands` are the equation's operands that its arguments are, in order."""

    jaxpr: AnyJaxpr
    operands: tuple[int, ...]
    slot: int = 0
    entry: tuple[str, int] | None = None


class Spread(Protocol):
    """How the values of a `shard_map`'s body lie: stacked over the shards."""

    @property
    def lanes(self) -> np.ndarray:
        """Which shards run it."""
        ...

    @property
    def leaf(self) -> Leaf:
        """How its equations are computed."""
        ...

    @property
    def count(self) -> int:
        """How many shards there are."""
        ...

    def mapped(self, function: Callable[..., Pytree], lanes: np.ndarray) -> Callable[..., Pytree]:
        """A function of what one shard holds, compiled as one of what all hold; shards that are not in `lanes` give zeros."""
        ...

    def split(self, mask: np.ndarray, output: int) -> np.ndarray:
        """A mask over a result of the `shard_map`, stacked over the shards that hold its parts."""
        ...

    def join(self, stacked: np.ndarray, operand: int) -> np.ndarray:
        """A stacked mask as one over an operand of the `shard_map`: an element is marked where any shard that holds it marks it."""
        ...

    def joined(self, stacked: Array, output: int) -> Array:
        """A stacked result as the `shard_map` gives it."""
        ...

    def fill(self, child: Run, args: Sequence[Array], lanes: np.ndarray) -> None:
        """Run a jaxpr, and those within it, on those shards."""
        ...


@dataclass
class Run:
    """One jaxpr as it ran: the value of every variable, and the run of every equation that was entered.

    `path` and `eqns` name where it stands (the numbers of the enclosing equations, and those themselves, outermost first), `entry` how it
    was entered (the iteration of a loop, the branch of a cond), `order` when. `operands` are the operands of the enclosing equation that
    its arguments are. `leaf` computes its equations, `evaluate` unless given. Where the program has callbacks, `tape` plays what they
    returned, and `marks` holds where the tape stood before each loop. With `spread` every value is stacked over shards.
    """

    jaxpr: Jaxpr
    consts: list[Array]
    path: tuple[int, ...] = ()
    eqns: tuple[JaxprEqn, ...] = ()
    entry: tuple[str, int] | None = None
    parent: Run | None = None
    operands: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    values: dict[Var, Array] = field(default_factory=dict)
    inner: dict[int, Run] = field(default_factory=dict)
    spread: Spread | None = None
    tape: Tape | None = None
    leaf: Leaf | None = None
    marks: dict[int, list[int]] = field(default_factory=dict)
    # How many equations have run, and the bytes that they made since values were let go.
    done: int = 0
    held: int = 0
    # The variables that somebody reads: `locating.decides` works them out.
    used: set[Var] | None = None

    @property
    def shards(self) -> int:
        """How many shards the values are stacked over; 0 outside of a `shard_map`."""
        return self.spread.count if self.spread is not None else 0

    def read(self, atom: Atom) -> Array:
        """The value of a variable or literal; inside a `shard_map`, stacked over the shards."""
        if not isinstance(atom, compat.Literal):
            return self.values[atom]
        value = literal(atom)
        return np.broadcast_to(value, (self.shards, *np.shape(value))) if self.shards else value

    def knows(self, atom: Atom) -> bool:
        """Whether the value of an atom was computed."""
        return isinstance(atom, compat.Literal) or atom in self.values

    def ins(self, eqn: JaxprEqn) -> list[Array]:
        """The operands of an equation."""
        return [self.read(atom) for atom in eqn.invars]

    def knows_ins(self, eqn: JaxprEqn) -> bool:
        """Whether every operand of an equation was computed."""
        return all(map(self.knows, eqn.invars))

    @cached_property
    def makers(self) -> dict[Var, int]:
        """The number of the equation that makes each variable; arguments and constants are not in it."""
        return {var: number for number, eqn in enumerate(self.jaxpr.eqns) for var in eqn.outvars}

    def maker(self, atom: Atom) -> int | None:
        """The number of the equation that makes an atom; None for an argument, a constant or a literal."""
        return None if isinstance(atom, compat.Literal) else self.makers.get(atom)

    def operand(self, var: Var) -> Atom | None:
        """The operand of the enclosing equation that an argument of this run is; None for a loop's carry and for a constant."""
        if self.parent is None or not self.operands or var not in self.jaxpr.invars:
            return None
        return self.eqns[-1].invars[self.operands[self.jaxpr.invars.index(var)]]

    def began(self, number: int, eqn: JaxprEqn) -> None:
        """Before an equation runs: note where the tape stands, so that a replay of a loop's iteration can play its callbacks from there."""
        if self.tape is not None and primitives.of(eqn).loops:
            self.marks[number] = self.tape.position()

    def made(self, number: int, eqn: JaxprEqn, outs: Sequence[Array | None]) -> None:
        """After an equation ran: keep its results, None for one that was not computed; past `BUDGET`, let go of what nothing needs."""
        known = {var: out for var, out in zip(eqn.outvars, outs, strict=True) if out is not None}
        self.values.update(known)
        self.done = number + 1
        self.held += sum(getattr(out, "nbytes", 0) for out in known.values() if not isinstance(out, Tracer))
        if self.held > BUDGET:
            self.release()
            self.held = 0

    def release(self) -> None:
        """Forget the values that no later equation reads, but not the operands and results of one that gave something non-finite.

        The way back from a symptom goes through those alone.
        """
        kept = {*self.jaxpr.invars, *self.jaxpr.constvars, *variables(self.jaxpr.outvars)}
        for number, eqn in enumerate(self.jaxpr.eqns):
            known = [var for var in eqn.outvars if var in self.values and nonfinite.is_inexact(var.aval)]
            if number >= self.done or not all(nonfinite.is_clean(self.values[var]) for var in known):
                kept |= {*eqn.outvars, *variables(eqn.invars)}
        self.values = {var: value for var, value in self.values.items() if var in kept}
        for child in self.inner.values():
            child.release()


def variables(atoms: Sequence[Atom]) -> list[Var]:
    """The atoms that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, compat.Literal)]


def literal(atom: compat.Literal) -> np.ndarray:
    """A literal's value in the type that the jaxpr gives it; JAX keeps a number that Python wrote as a Python number with a dtype."""
    return np.asarray(atom.val, compat.aval(atom).dtype)


# How an equation with these operands is entered; None where it runs whole.
Rule = Callable[[JaxprEqn, Sequence[Array]], Inside | None]
Leaf = Callable[[JaxprEqn, Sequence[Array]], Sequence[Array]]
RULES: Registry[str, Rule] = Registry()


@RULES.rule("scan", "while", "shard_map")
def _whole(eqn: JaxprEqn, ins: Sequence[Array]) -> Inside | None:
    return None


@RULES.rule("cond")
def _cond(eqn: JaxprEqn, ins: Sequence[Array]) -> Inside | None:
    if isinstance(ins[0], Tracer) or not primitives.of(eqn).branches:
        return None
    branches = eqn.params["branches"]
    taken = int(np.clip(int(ins[0]), 0, len(branches) - 1))
    return Inside(branches[taken], tuple(range(1, len(ins))), taken, ("cond", taken))


@RULES.rule("custom_linear_solve")
def _linear_solve(eqn: JaxprEqn, ins: Sequence[Array]) -> Inside | None:
    if not primitives.of(eqn).solves:
        return None
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    consts = range(start, start + lengths.solve)
    right = range(sum(lengths), len(ins))
    return Inside(jaxprs.solve, (*consts, *right))


def call(eqn: JaxprEqn, ins: Sequence[Array]) -> Inside | None:
    """Any equation that carries one jaxpr over the same operands: jit, remat, custom_jvp, custom_vjp, closed calls."""
    bodies = compat.sub_jaxprs(eqn)
    if len(bodies) != 1 or primitives.of(eqn).opaque:
        return None
    body = bodies[0][1]
    jaxpr, _ = compat.open_jaxpr(body)
    same = [getattr(var.aval, "shape", None) for var in jaxpr.invars] == [getattr(atom.aval, "shape", None) for atom in eqn.invars]
    return Inside(body, tuple(range(len(ins)))) if same and len(jaxpr.outvars) == len(eqn.outvars) else None


def begin(program: Program, leaf: Leaf | None = None) -> Run:
    """The run of a whole program, not yet begun."""
    if program.tape is not None:
        program.tape.rewind()
    return Run(program.jaxpr, program.consts, tape=program.tape, leaf=leaf)


def start(inside: Inside, eqn: JaxprEqn, number: int, outer: Run) -> Run:
    """The run, not yet begun, of a jaxpr that the `number`-th equation of `outer` carries."""
    jaxpr, consts = compat.open_jaxpr(inside.jaxpr)
    return Run(
        jaxpr,
        consts,
        (*outer.path, number, inside.slot),
        (*outer.eqns, eqn),
        inside.entry,
        outer,
        inside.operands,
        (*outer.order, number),
        spread=outer.spread,
        tape=outer.tape,
        leaf=outer.leaf,
    )


def run(level: Run, args: Sequence[Array], targets: frozenset[Var] = frozenset(), leaf: Leaf | None = None) -> None:
    """Run the jaxpr of one level, and those within it, equation by equation; with `targets`, only until those variables are known.

    `leaf` computes the results of an equation that is not entered, in place of the level's own.
    """
    leaf = leaf or level.leaf or evaluate
    level.values.update(zip([*level.jaxpr.constvars, *level.jaxpr.invars], [*level.consts, *args], strict=True))
    stop = _stop(level, targets)
    for number, eqn in enumerate(level.jaxpr.eqns[:stop]):
        level.began(number, eqn)
        ins = level.ins(eqn)
        inside = RULES.get(eqn.primitive.name, call)(eqn, ins)
        if inside is None:
            level.made(number, eqn, leaf(eqn, ins))
        else:
            child = level.inner[number] = start(inside, eqn, number, level)
            run(child, [ins[slot] for slot in inside.operands], _inner(child, eqn, targets if number == stop - 1 else frozenset()), leaf)
            level.made(number, eqn, [child.read(atom) if child.knows(atom) else None for atom in child.jaxpr.outvars])


def _stop(level: Run, targets: frozenset[Var]) -> int:
    """The number of equations to run so that all targets are known; all of them where there are none, or one is made by no equation."""
    needed = [level.maker(var) for var in targets] or [None]
    return len(level.jaxpr.eqns) if None in needed else 1 + max(number for number in needed if number is not None)


def _inner(child: Run, eqn: JaxprEqn, targets: frozenset[Var]) -> frozenset[Var]:
    """The targets of the last equation's own run; none, so that it runs to its end, where one of them is a literal in it."""
    results = [inner for inner, var in zip(child.jaxpr.outvars, eqn.outvars, strict=True) if var in targets]
    return frozenset() if any(isinstance(atom, compat.Literal) for atom in results) else frozenset(variables(results))


def evaluate(eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
    """The results of one equation: by numpy where that gives XLA's very bits without compiling anything, else by XLA."""
    name = eqn.primitive.name
    if all(map(_in_memory, ins)):
        arrays = [np.asarray(x) for x in ins]
        try:
            out = MOVES[name](eqn.params, *arrays) if name in MOVES else ieee.evaluate(eqn, arrays)
        # Another library's primitive of the same name has other operands and parameters.
        except (KeyError, TypeError, ValueError):
            out = None
        if out is not None:
            return out
    if primitives.of(eqn).piecemeal:
        # What JAX would run operation by operation, each compiled for all devices, is compiled as one.
        return effects.settled(jax.jit(partial(compat.bind, meshes.with_mesh(eqn, ins) or eqn))(ins))
    return effects.settled(compat.bind(eqn, ins))


def traced(body: AnyJaxpr, how: Leaf) -> Callable[..., list[jax.Array]]:
    """A jaxpr as a function whose equations are computed so."""
    jaxpr, consts = compat.open_jaxpr(body)

    def function(*args: Array) -> list[jax.Array]:
        level = Run(jaxpr, consts)
        run(level, args, leaf=how)
        values = map(level.read, jaxpr.outvars)
        return [value if isinstance(value, jax.Array) else jnp.asarray(value) for value in values]

    return function


def switched(eqn: JaxprEqn, ins: Sequence[Array], how: Leaf) -> list[jax.Array]:
    """The results of a `cond` whose branches' equations are computed so."""
    return lax.switch(jnp.int32(ins[0]), [traced(branch, how) for branch in eqn.params["branches"]], *ins[1:])


def _in_memory(value: Array) -> bool:
    """Whether numpy can read a value without a copy: it is numpy's already, or lies on the one CPU device."""
    if isinstance(value, np.ndarray | np.generic):
        return True
    if isinstance(value, Tracer) or not isinstance(value, jax.Array) or jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return False
    devices = value.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"
