"""Loops, run again: which iteration made a carried element bad is found without keeping a million iterations.

The loop runs compiled, and carries beside each element the iteration since which it has been finite, infinite or NaN as it is: one more
number for each element, however many iterations there are. Then that one iteration is replayed, equation by equation. Inside a `shard_map`
all shards go through an iteration at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import compat, nonfinite
from nandetect.annotations import Array
from nandetect.compat import AnyJaxpr, JaxprEqn
from nandetect.interpret import walk
from nandetect.interpret.walk import Leaf, Run, Spread

Made = TypeVar("Made")
# For each carried value, the iteration since which each element is finite, infinite or NaN as it is; None for a value that is no float.
Marks = list[jax.Array | None]
# What a loop carries while it runs again: the iteration, the carried values, and the marks beside them.
State = tuple[jax.Array, list[Array], Marks]
# The most iterations of a loop that are kept with their values.
REMEMBERED = 3
# In a replay with other values, the most iterations of a `while`, since what its condition waits for may never come; of nested loops the
# most of all together, and the least that each of them is given.
MOST_ITERATIONS, ALTOGETHER, LEAST_ITERATIONS = 1_000, 1 << 22, 10


@dataclass(frozen=True)
class Iteration:
    """One iteration run equation by equation, its arguments, and for each carried one since which iteration its elements are as bad."""

    run: Run
    args: list[Array]
    since: list[np.ndarray]


@dataclass
class Loop:
    """A scan or a while, taken apart: its operands are constants, carried values (`carry` of them) and, for a scan, rows.

    `first_const` and `first_carry` are the numbers of the operands at which constants and carried values begin, `slot` that of the body
    among the equation's jaxprs. `rewind` brings the callbacks' tape back to where it stood before the loop. With `spread` all operands are
    stacked over shards.
    """

    eqn: JaxprEqn
    ins: Sequence[Array]
    how: Leaf | None
    name: str
    body: AnyJaxpr
    slot: int
    consts: Sequence[Array]
    first_const: int
    first_carry: int
    carry: int
    init: Sequence[Array]
    rows: Sequence[Array]
    length: int
    reverse: bool
    condition: Callable[..., jax.Array] | None = None
    # The condition as it is written, and its constants.
    test: AnyJaxpr | None = None
    test_consts: Sequence[Array] = ()
    rewind: Callable[[], None] | None = None
    spread: Spread | None = None
    replayed: dict[int, Iteration] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reached: dict[int, tuple[list[Array], list[np.ndarray]]] = {}
        self._ran = np.asarray(0)
        self.function = _function(self.body, self.how)
        self._advance: Callable[..., tuple[jax.Array, list[Array], Marks]] = jax.jit(self._run)

    def over(self, spread: Spread) -> None:
        """Take the operands as stacked over shards."""
        self.spread, self._advance = spread, spread.mapped(self._run, spread.lanes)

    @property
    def axis(self) -> int:
        """The axis of rows and of stacked results along which the iterations lie."""
        return 0 if self.spread is None else 1

    def of_row(self, values: np.ndarray, row: int) -> np.ndarray:
        """What belongs to one row of the loop's stacked results."""
        return values.take(row, axis=self.axis)

    def as_row(self, mask: np.ndarray, row: int) -> np.ndarray:
        """A mask over one row as one over all of them."""
        whole = np.zeros((self.length, *mask.shape), bool)
        whole[row] = mask
        return np.moveaxis(whole, 0, self.axis)

    def row(self, step: int) -> int:
        """The row that the `step`-th iteration in run-time order reads: the iteration as the user counts."""
        return self.length - 1 - step if self.reverse else step

    def step(self, row: int) -> int:
        """The run-time position of the iteration that reads `row`."""
        return self.row(row)

    def at(self, stop: int) -> tuple[list[Array], list[np.ndarray]]:
        """The carried values before the `stop`-th iteration and, of each element, since which one it is as it is (-1: from the start)."""
        return self.remembered(self._reached, stop, lambda: self._reach(stop))

    def ran(self) -> int:
        """How many iterations there were."""
        if self.condition is not None:
            self._reach(self.length)
        return int(self._ran.max()) if self.condition is not None else self.length

    def going(self, step: int) -> np.ndarray:
        """Which shards go through an iteration: a `while` ends on each by itself."""
        assert self.spread is not None
        if self.condition is None:
            return self.spread.lanes
        self._reach(step + 1)
        return self.spread.lanes & (self._ran > step)

    def remembered(self, cache: dict[int, Made], step: int, make: Callable[[], Made]) -> Made:
        """What `make` gives for an iteration, from the cache where it is there: many symptoms lead to the same few iterations.

        With callbacks on tape it is made anew each time, since they have to be played.
        """
        if self.rewind is not None:
            return make()
        if step not in cache:
            if len(cache) >= REMEMBERED:
                del cache[next(iter(cache))]
            cache[step] = make()
        return cache[step]

    def _reach(self, stop: int) -> tuple[list[Array], list[np.ndarray]]:
        since: Marks = [jnp.full(jnp.shape(x), -1, jnp.int32) if nonfinite.is_inexact(x) else None for x in self.init]
        if self.rewind is not None:
            self.rewind()
        last = np.int32(stop) if self.spread is None else np.full(self.spread.count, stop, np.int32)
        steps, carry, since = self._advance(list(self.ins), since, last)
        self._ran = np.asarray(steps)
        return list(carry), [np.asarray(-1) if mark is None else np.asarray(mark) for mark in since]

    def kept(self, old: Sequence[Array], new: Sequence[Array]) -> list[Array]:
        """The carried values after an iteration: under `vmap`, lanes of a while that are done keep theirs."""
        going = jnp.bool_(True) if self.condition is None else self.condition(*old)
        if not jnp.ndim(going):
            return list(new)
        return [jnp.where(going.reshape(going.shape + (1,) * (jnp.ndim(x) - going.ndim)), y, x) for x, y in zip(old, new, strict=True)]

    def _run(self, ins: list[Array], since: Marks, stop: Array) -> tuple[jax.Array, list[Array], Marks]:
        own = open_loop(self.eqn, ins, self.how)
        if not self.length:
            # There is no row that the body could be traced on.
            return jnp.int32(0), list(own.init), since

        def go_on(state: State) -> jax.Array:
            step, carry, _ = state
            more = step < stop
            return more if own.condition is None else more & jnp.any(own.condition(*carry))

        def iterate(state: State) -> State:
            step, carry, since = state
            row = self.length - 1 - step if self.reverse else step
            of_row = [lax.dynamic_index_in_dim(x, row, keepdims=False) for x in own.rows]
            new = own.kept(carry, own.function(*own.consts, *carry, *of_row)[: self.carry])
            marks = [
                None if mark is None else jnp.where(_kind(after) != _kind(before), step, mark)
                for mark, before, after in zip(since, carry, new, strict=True)
            ]
            return step + 1, list(new), marks

        return lax.while_loop(go_on, iterate, (jnp.int32(0), list(own.init), since))


def _kind(x: Array) -> jax.Array:
    """0 for a finite element, 1 for an infinite one, 2 for NaN."""
    return jnp.isnan(x) * 2 + jnp.isinf(x)


def _function(body: AnyJaxpr, how: Leaf | None) -> Callable[..., list[jax.Array]]:
    """A jaxpr as a function whose equations are computed so, if it is said how."""
    return compat.quiet_function(body) if how is None else walk.traced(body, how)


def open_loop(eqn: JaxprEqn, ins: Sequence[Array], how: Leaf | None = None) -> Loop:
    """A scan or while equation with the operands that it ran on; `how` its equations are computed, where not as they are."""
    if eqn.primitive.name == "scan":
        consts, carry = compat.scan_parts(eqn)
        return Loop(
            eqn,
            ins,
            how,
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
    test = _function(eqn.params["cond_jaxpr"], how)
    slot = [key for key, _ in compat.sub_jaxprs(eqn)].index("body_jaxpr")
    return Loop(
        eqn,
        ins,
        how,
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
        condition=lambda *carry: jnp.asarray(test(*ins[:outer], *carry)[0]),
        test=eqn.params["cond_jaxpr"],
        test_consts=ins[:outer],
    )


def traced(loop: Loop, most: int | None = None) -> Sequence[Array]:
    """The results of a loop, traced anew; of a `while` after the most iterations that it is given, whatever its condition waits for."""
    function, condition = loop.function, loop.condition
    if condition is None:

        def scanned(carry: Sequence[Array], row: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
            outs = function(*loop.consts, *carry, *row)
            return outs[: loop.carry], outs[loop.carry :]

        carry, stacked = lax.scan(scanned, list(loop.init), list(loop.rows), loop.length, loop.reverse)
        return [*carry, *stacked]

    def body(carry: list[Array]) -> list[Array]:
        return loop.kept(carry, function(*loop.consts, *carry))

    if most is not None:
        return bounded(condition, body, list(loop.init), most)
    return lax.while_loop(lambda carry: jnp.any(condition(*carry)), body, list(loop.init))


def bounded(condition: Callable[..., jax.Array], body: Callable[[list[Array]], list[Array]], init: list[Array], most: int) -> list[Array]:
    """A `while` that ends after the most iterations that it is given, whatever its condition waits for."""

    def go_on(state: tuple[jax.Array, list[Array]]) -> jax.Array:
        return (state[0] < most) & jnp.any(condition(*state[1]))

    def iterate(state: tuple[jax.Array, list[Array]]) -> tuple[jax.Array, list[Array]]:
        return state[0] + 1, body(state[1])

    return lax.while_loop(go_on, iterate, (jnp.int32(0), init))[1]


def opened(run: Run, number: int) -> Loop:
    """The loop that an equation of a run is, on the operands that it ran on; its callbacks' tape can be brought back to where it began."""
    eqn = run.jaxpr.eqns[number]
    spread = run.spread
    loop = open_loop(eqn, run.ins(eqn), run.leaf or (spread.leaf if spread is not None else None))
    if spread is not None:
        loop.over(spread)
    if run.leaf is not None:
        loop.length = loop.length if loop.condition is None else most_iterations(eqn, run.eqns)
    tape, mark = run.tape, run.marks.get(number)
    if tape is not None and mark is not None:
        loop.rewind = lambda: tape.seek(mark)
    return loop


def holds_while(eqn: JaxprEqn) -> bool:
    """Whether an equation is a `while`, or has one within."""
    if eqn.primitive.name == "while":
        return True
    return any(holds_while(inner) for _, sub in compat.sub_jaxprs(eqn) for inner in compat.open_jaxpr(sub)[0].eqns)


def most_iterations(eqn: JaxprEqn, around: Sequence[JaxprEqn] = ()) -> int:
    """The most iterations of each `while` in an equation, and in those around it, when they run with other values."""
    whiles, rows = max(map(_nesting, (*around, eqn)))
    return max(LEAST_ITERATIONS, min(MOST_ITERATIONS, int((ALTOGETHER / rows) ** (1 / max(whiles, 1)))))


def _nesting(eqn: JaxprEqn) -> tuple[int, int]:
    """How many `while`s stand in one another within an equation, and how often scans run the outermost of them."""
    inner = [_nesting(within) for _, sub in compat.sub_jaxprs(eqn) for within in compat.open_jaxpr(sub)[0].eqns]
    whiles, rows = max(inner, default=(0, 1))
    if eqn.primitive.name == "while":
        return whiles + 1, rows
    return whiles, rows * max(eqn.params["length"], 1) if whiles and eqn.primitive.name == "scan" else rows


def iteration(run: Run, number: int, loop: Loop, step: int) -> Iteration:
    """One iteration, run equation by equation, of the loop that an equation of `run` is."""
    return loop.remembered(loop.replayed, step, lambda: _iteration(run, number, loop, step))


def _iteration(run: Run, number: int, loop: Loop, step: int) -> Iteration:
    carry, since = loop.at(step)
    row = loop.row(step)
    args = [*loop.consts, *carry, *(_row(x, row, loop.axis) for x in loop.rows)]
    child = walk.start(walk.Inside(loop.body, (), loop.slot, (loop.name, row)), run.jaxpr.eqns[number], number, run)
    child.order = (*child.order, step)
    if run.spread is None:
        walk.run(child, args)
    else:
        run.spread.fill(child, args, loop.going(step))
    return Iteration(child, args, since)


def _row(x: Array, row: int, axis: int) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return x[row] if axis == 0 else x[:, row]
    return np.asarray(x).take(row, axis=axis)
