"""Loops on the way back: find the iteration at which a carried element went bad, without keeping a million iterations.

The loop is run again, compiled, and carries beside each element the iteration since which it has been as bad as it is. One element of
memory for each element carried, whatever the number of iterations. Then that one iteration is replayed, equation by equation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import compat, nonfinite
from nandetect.interpret import compiled, walk
from nandetect.locating.tracked import Wanted, merge

if TYPE_CHECKING:
    from nandetect.interpret.walk import Run
    from nandetect.locating.trail import Node, Trail

# A carried value that wanders from element to element asks for a replay at each.
REPLAYS = 256
AT_ONCE = 4
# Iterations of a loop that are held with the values they had.
REMEMBERED = 3


@dataclass
class Loop:
    """A scan or a while, taken apart: operands are constants, carried values and, for a scan, rows."""

    name: str
    body: Any
    slot: int
    consts: Sequence[Any]
    first_const: int
    first_carry: int
    carry: int
    init: Sequence[Any]
    rows: Sequence[Any]
    length: int
    reverse: bool
    condition: Any = None
    rewind: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self._reached: dict[int, tuple[list[Any], list[np.ndarray]]] = {}
        self.replayed: dict[int, Any] = {}
        self.function = compat.quiet_function(self.body)
        self._advance = jax.jit(self._run)

    def row(self, step: int) -> int:
        """The row that the `step`-th iteration in run-time order reads: the iteration as the user counts."""
        return self.length - 1 - step if self.reverse else step

    def step(self, row: int) -> int:
        """The run-time position of the iteration that reads `row`."""
        return self.row(row)

    def at(self, stop: int) -> tuple[list[Any], list[np.ndarray]]:
        """Carried values and, of each element, since when it is as it is (-1: from the start), before the `stop`-th iteration."""
        return self.remembered(self._reached, stop, lambda: self._reach(stop))

    def remembered(self, where: dict[int, Any], step: int, made: Callable[[], Any]) -> Any:
        """What was made for this iteration before: many symptoms lead to the same few. Callbacks on tape have to be played each time."""
        if self.rewind is not None:
            return made()
        if step not in where:
            if len(where) >= REMEMBERED:
                del where[next(iter(where))]
            where[step] = made()
        return where[step]

    def _reach(self, stop: int) -> tuple[list[Any], list[np.ndarray]]:
        since = [jnp.full(jnp.shape(x), -1, jnp.int32) if nonfinite.is_inexact(x) else None for x in self.init]
        if self.rewind is not None:
            self.rewind()
        _, carry, since = self._advance(list(self.consts), list(self.init), since, list(self.rows), stop)
        return list(carry), [np.asarray(-1) if s is None else np.asarray(s) for s in since]

    def kept(self, old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
        """The carried values after an iteration: under `vmap`, lanes of a while that are done keep theirs."""
        going = jnp.bool_(True) if self.condition is None else self.condition(*old)
        if not jnp.ndim(going):
            return list(new)
        return [jnp.where(going.reshape(going.shape + (1,) * (jnp.ndim(x) - going.ndim)), y, x) for x, y in zip(old, new, strict=True)]

    def _run(self, consts: Any, init: Any, since: Any, rows: Any, stop: Any) -> Any:
        def go_on(state: Any) -> Any:
            step, carry, _ = state
            more = step < stop
            return more if self.condition is None else more & jnp.any(self.condition(*carry))

        def iterate(state: Any) -> Any:
            step, carry, since = state
            at = self.length - 1 - step if self.reverse else step
            here = [lax.dynamic_index_in_dim(x, at, keepdims=False) for x in rows]
            new = self.kept(carry, self.function(*consts, *carry, *here)[: self.carry])
            marks = [
                None if mark is None else jnp.where(_kind(after) != _kind(before), step, mark)
                for mark, before, after in zip(since, carry, new, strict=True)
            ]
            return step + 1, list(new), marks

        return lax.while_loop(go_on, iterate, (jnp.int32(0), init, since))


def _kind(x: Any) -> Any:
    return jnp.isnan(x) * 2 + jnp.isinf(x)


def open_loop(eqn: Any, ins: Sequence[Any]) -> Loop:
    """A scan or while equation with the operands that it ran on."""
    if eqn.primitive.name == "scan":
        consts, carry = compat.scan_parts(eqn)
        return Loop(
            name="scan",
            body=eqn.params["jaxpr"],
            slot=0,
            consts=ins[:consts],
            first_const=0,
            first_carry=consts,
            carry=carry,
            init=ins[consts : consts + carry],
            rows=ins[consts + carry :],
            length=eqn.params["length"],
            reverse=eqn.params["reverse"],
        )
    outer, inner = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    test = compat.quiet_function(eqn.params["cond_jaxpr"])
    slot = [key for key, _ in compat.sub_jaxprs(eqn)].index("body_jaxpr")
    return Loop(
        name="while",
        body=eqn.params["body_jaxpr"],
        slot=slot,
        consts=ins[outer : outer + inner],
        first_const=outer,
        first_carry=outer + inner,
        carry=len(ins) - outer - inner,
        init=ins[outer + inner :],
        rows=[],
        length=np.iinfo(np.int32).max,
        reverse=False,
        condition=lambda *carry: test(*ins[:outer], *carry)[0],
    )


def opened(node: Node) -> Loop:
    """The loop of an equation as it ran, with its callbacks' results brought back to where it began."""
    loop = open_loop(node.eqn, node.run.ins(node.eqn))
    tape, mark = node.run.tape, node.run.marks.get(node.number)
    if tape is not None and mark is not None:
        loop.rewind = lambda: tape.seek(mark)
    return loop


def iteration(node: Node, loop: Loop, step: int) -> tuple[Run, list[Any], list[np.ndarray]]:
    """One iteration run equation by equation; with its arguments, and since when each carried element was as it was."""
    return loop.remembered(loop.replayed, step, lambda: _iteration(node, loop, step))


def _iteration(node: Node, loop: Loop, step: int) -> tuple[Run, list[Any], list[np.ndarray]]:
    carry, since = loop.at(step)
    row = loop.row(step)
    args = [*loop.consts, *carry, *(_row(x, row) for x in loop.rows)]
    child = walk.start(walk.Inside(loop.body, (), loop.slot, (loop.name, row)), node.eqn, node.number, node.run)
    child.order = (*child.order, step)
    walk.run(child, args)
    return child, args, since


Found = list[tuple[int, Wanted, "Node | None"]]


class Back:
    """One loop on one trail: the iterations still to be replayed, each with the elements of its results that are wanted."""

    def __init__(self, trail: Trail, node: Node):
        self.trail, self.node = trail, node
        key = (id(node.run), node.number)
        if key not in trail.replayed:
            trail.replayed[key] = opened(node)
        self.loop: Loop = trail.replayed[key]
        self.pending: dict[int, dict[int, Wanted]] = {}
        self.askers: dict[tuple[int, int], Node | None] = {}
        self.found: Found = []

    def want(self, step: int, result: int, elements: Wanted, asker: Node | None) -> None:
        merge(self.pending.setdefault(step, {}).setdefault(result, {}), elements)
        self.askers.setdefault((step, result), asker)

    def want_carried(self, position: int, elements: Wanted, since: np.ndarray, asker: Node | None) -> None:
        """Send each carried element to the iteration since which it is bad, or out to the loop's operand."""
        for use, mask in elements.items():
            for step in np.unique(since[mask])[:AT_ONCE]:
                there = mask & (since == step)
                if step < 0:
                    self.found.append((self.loop.first_carry + position, {use: there}, asker))
                else:
                    self.want(int(step), position, {use: there}, asker)

    def replay(self, step: int) -> None:
        """Run one iteration equation by equation and follow what is wanted of it."""
        loop, wanted = self.loop, self.pending.pop(step)
        row = loop.row(step)
        child, args, since = iteration(self.node, loop, step)
        if not _shows(child, wanted):
            child = compiled.run(child, args)
            self.trail.compiled_only = True
        atoms = {result: child.jaxpr.outvars[result] for result in wanted}
        asked: dict[Any, Wanted] = {}
        for result, atom in atoms.items():
            if not isinstance(atom, compat.Literal):
                merge(asked.setdefault(atom, {}), wanted[result])
        askers = {atom: self.askers[step, result] for result, atom in atoms.items() if atom in asked}
        for var, (elements, by) in self.trail.follow(child, asked, askers).items():
            if var in child.jaxpr.invars:
                self._leave(child, var, elements, by, since, row)
            else:
                self.trail.constant(child, var, elements, by)

    def _leave(self, child: Run, var: Any, elements: Wanted, by: Node | None, since: Sequence[Any], row: int) -> None:
        loop = self.loop
        at = child.jaxpr.invars.index(var)
        consts = len(loop.consts)
        if at < consts:
            self.found.append((loop.first_const + at, elements, by))
        elif at < consts + loop.carry:
            self.want_carried(at - consts, elements, since[at - consts], by)
        else:
            slot = loop.first_carry + at - consts
            for use, mask in elements.items():
                whole = np.zeros((loop.length, *mask.shape), bool)
                whole[row] = mask
                self.found.append((slot, {use: whole}, by))


def follow(trail: Trail, node: Node, asked: dict[int, Wanted], asker: Node | None) -> Iterable[tuple[int, Wanted, Node | None]] | None:
    """Follow the wanted results of a loop back to its operands, through the iterations that carried them."""
    back = Back(trail, node)
    loop = back.loop
    if any(result < loop.carry for result in asked):
        _, since = loop.at(loop.length)
        for result, elements in asked.items():
            if result < loop.carry:
                back.want_carried(result, elements, since[result], asker)
    for result, elements in asked.items():
        if result >= loop.carry:
            for use, mask in elements.items():
                rows = np.flatnonzero(mask.reshape(loop.length, -1).any(axis=1))
                for step in sorted(loop.step(int(row)) for row in rows)[:AT_ONCE]:
                    back.want(step, result, {use: mask[loop.row(step)]}, asker)
    for _ in range(REPLAYS):
        if not back.pending:
            break
        back.replay(max(back.pending) if len(back.pending) < AT_ONCE else min(back.pending))
    # What could not be followed to its end is not passed over in silence: it is the loop's.
    trail.unfollowed += [(node, result, elements) for wanted in back.pending.values() for result, elements in wanted.items()]
    return back.found


def _row(x: Any, row: int) -> Any:
    extended = jnp.issubdtype(x.dtype, jax.dtypes.extended)
    return x[row] if extended else np.asarray(x)[row]


def _shows(run: Run, wanted: dict[int, Wanted]) -> bool:
    """Whether a replay has something non-finite wherever it is wanted."""
    return all(
        bool((nonfinite.bad(run.read(run.jaxpr.outvars[result])) & mask).any())
        for result, elements in wanted.items()
        for mask in elements.values()
    )
