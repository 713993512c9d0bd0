"""The one loop and its table: run a jaxpr equation by equation, and keep what was seen.

A rule says how an equation is entered: `Inside` (run its jaxpr here, equation by equation), or nothing (run it whole, as a leaf).
Loops are leaves: they run compiled, and `loops` replays the one iteration that matters. So is `shard_map`: see `shards`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nandetect import compat, nonfinite
from nandetect.interpret import ieee
from nandetect.interpret.movement import MOVES

LOOPS = frozenset({"scan", "while"})
# Bytes of new values after which those that nothing needs any more are let go.
BUDGET = 1 << 30


@dataclass(frozen=True, slots=True)
class Inside:
    """A jaxpr to run in place of its equation: `operands` are the equation's operands that its arguments are, in order."""

    jaxpr: Any
    operands: tuple[int, ...]
    slot: int = 0
    entry: tuple[str, int] | None = None


@dataclass(slots=True)
class Run:
    """One jaxpr as it ran: the value of every variable, and the run of every equation that was entered.

    `path` and `eqns` name where it stands (the numbers of the enclosing equations, and those themselves, outermost first), `entry` how it
    was entered (the iteration of a loop, the branch of a cond), `order` when. Where the program has callbacks, `tape` plays what they
    returned, and `marks` holds where it stood before each loop. With `shards` every value is stacked over that many devices.
    """

    jaxpr: Any
    consts: list[Any]
    path: tuple[int, ...] = ()
    eqns: tuple[Any, ...] = ()
    entry: tuple[str, int] | None = None
    parent: Run | None = None
    operands: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    values: dict[Any, Any] = field(default_factory=dict)
    inner: dict[int, Run] = field(default_factory=dict)
    shards: int = 0
    tape: Any = None
    marks: dict[int, list[int]] = field(default_factory=dict)
    done: int = 0

    def read(self, atom: Any) -> Any:
        """The value of a variable or literal; inside a `shard_map`, of all shards."""
        if not isinstance(atom, compat.Literal):
            return self.values[atom]
        value = literal(atom)
        return np.broadcast_to(value, (self.shards, *np.shape(value))) if self.shards else value

    def knows(self, atom: Any) -> bool:
        """Whether the value of an atom was computed."""
        return isinstance(atom, compat.Literal) or atom in self.values

    def ins(self, eqn: Any) -> list[Any]:
        """The operands of an equation."""
        return [self.read(atom) for atom in eqn.invars]


def literal(atom: Any) -> Any:
    """A literal's value in the type that the jaxpr gives it."""
    dtype = getattr(atom.val, "dtype", None)
    return atom.val if dtype is not None and dtype == atom.aval.dtype else np.asarray(atom.val, atom.aval.dtype)


Rule = Callable[[Any, Sequence[Any]], Inside | None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function in the table under the primitives it is for."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


@rule("scan", "while", "shard_map")
def _leaf(eqn: Any, ins: Sequence[Any]) -> Inside | None:
    return None


@rule("cond")
def _cond(eqn: Any, ins: Sequence[Any]) -> Inside | None:
    if isinstance(ins[0], Tracer):
        return None
    branches = eqn.params["branches"]
    taken = int(np.clip(int(ins[0]), 0, len(branches) - 1))
    return Inside(branches[taken], tuple(range(1, len(ins))), taken, ("cond", taken))


@rule(*compat.LINEAR_SOLVES)
def _linear_solve(eqn: Any, ins: Sequence[Any]) -> Inside | None:
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    consts = range(start, start + lengths.solve)
    right = range(sum(lengths), len(ins))
    return Inside(jaxprs.solve, (*consts, *right))


def call(eqn: Any, ins: Sequence[Any]) -> Inside | None:
    """Any equation that carries one jaxpr over the same operands: jit, remat, custom_jvp, custom_vjp, closed calls."""
    found = compat.sub_jaxprs(eqn)
    if len(found) != 1 or compat.is_opaque(eqn):
        return None
    jaxpr, _ = compat.open_jaxpr(found[0][1])
    same = [getattr(var.aval, "shape", None) for var in jaxpr.invars] == [getattr(atom.aval, "shape", None) for atom in eqn.invars]
    return Inside(found[0][1], tuple(range(len(ins)))) if same and len(jaxpr.outvars) == len(eqn.outvars) else None


def start(inside: Inside, eqn: Any, number: int, outer: Run) -> Run:
    """A run of the jaxpr of the `number`-th equation of `outer`, not yet begun."""
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
        tape=outer.tape,
    )


def run(this: Run, args: Sequence[Any], targets: frozenset[Any] = frozenset(), leaf: Callable[..., list[Any]] | None = None) -> bool:
    """Run a jaxpr, equation by equation. With `targets` it stops when all of those variables are known, and says so."""
    leaf = leaf or evaluate
    held = 0
    this.values.update(zip([*this.jaxpr.constvars, *this.jaxpr.invars], [*this.consts, *args], strict=True))
    missing = set(targets)
    for number, eqn in enumerate(this.jaxpr.eqns):
        ins = this.ins(eqn)
        inside = RULES.get(eqn.primitive.name, call)(eqn, ins)
        stopped = False
        if this.tape is not None and eqn.primitive.name in LOOPS:
            this.marks[number] = this.tape.position()
        if inside is None:
            outs = leaf(eqn, ins)
        else:
            child = this.inner[number] = start(inside, eqn, number, this)
            wanted = frozenset(inner for inner, var in zip(child.jaxpr.outvars, eqn.outvars, strict=True) if var in missing)
            # Only a call that holds all that is missing may be left early.
            wanted = (
                wanted if wanted and missing <= set(eqn.outvars) and not any(isinstance(v, compat.Literal) for v in wanted) else frozenset()
            )
            stopped = run(child, [ins[at] for at in inside.operands], wanted, leaf)
            outs = [child.read(atom) if child.knows(atom) else None for atom in child.jaxpr.outvars]
        this.values.update((var, out) for var, out in zip(eqn.outvars, outs, strict=True) if out is not None)
        this.done = number + 1
        held += sum(getattr(out, "nbytes", 0) for out in outs if not isinstance(out, Tracer))
        if held > BUDGET:
            release(this)
            held = 0
        missing.difference_update(eqn.outvars)
        if targets and (stopped or not missing):
            return True
    return False


def release(this: Run) -> None:
    """Forget the values that no later equation reads and that no way back needs: neither operand nor result of one that went bad."""
    kept = {*this.jaxpr.invars, *this.jaxpr.constvars}
    kept |= {atom for atom in this.jaxpr.outvars if not isinstance(atom, compat.Literal)}
    for number, eqn in enumerate(this.jaxpr.eqns):
        known = [var for var in eqn.outvars if var in this.values and nonfinite.is_inexact(var.aval)]
        if number >= this.done or not all(nonfinite.is_clean(this.values[var]) for var in known):
            kept |= {*eqn.outvars, *(atom for atom in eqn.invars if not isinstance(atom, compat.Literal))}
    this.values = {var: value for var, value in this.values.items() if var in kept}
    for child in this.inner.values():
        release(child)


def evaluate(eqn: Any, ins: Sequence[Any]) -> list[Any]:
    """The results of one equation: by numpy where that gives XLA's very bits without compiling anything, else by XLA."""
    name = eqn.primitive.name
    if all(map(_in_memory, ins)):
        arrays = [np.asarray(x) for x in ins]
        out = MOVES[name](eqn.params, *arrays) if name in MOVES else ieee.evaluate(eqn, arrays)
        if out is not None:
            return out
    return compat.bind(eqn, ins)


def _in_memory(value: Any) -> bool:
    """Whether numpy can read a value without a copy: it is numpy's already, or lies on the one CPU device."""
    if isinstance(value, np.ndarray | np.generic):
        return True
    if isinstance(value, Tracer) or not isinstance(value, jax.Array) or jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return False
    devices = value.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"
