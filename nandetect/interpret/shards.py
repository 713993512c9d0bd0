"""`shard_map`, looked into: every value inside as each device had it, stacked over the devices along a first axis.

The body runs as one sharded program that returns all its intermediates, so that collectives do what they did. Of a loop in it one iteration
runs so, of a branch the shards that took it. JAX is not asked to check over which axes values vary: stacked, all of them do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from nandetect import compat, primitives
from nandetect.annotations import Array, Pytree
from nandetect.compat import JaxprEqn
from nandetect.interpret import compiled, loops, meshes, walk
from nandetect.interpret.compiled import Traced
from nandetect.interpret.dependence import Flow, flows, from_numbers
from nandetect.interpret.walk import Inside, Leaf, Run
from nandetect.nonfinite import Mask


def entered(eqn: JaxprEqn, ins: Sequence[Array]) -> JaxprEqn | None:
    """A `shard_map` over devices that are all this process's own: a collective started on one process alone would hang. Else None."""
    return meshes.with_mesh(eqn, ins) if primitives.of(eqn).piecemeal and jax.process_count() == 1 else None


def axes(eqn: JaxprEqn) -> tuple[str, ...]:
    """The mesh axes that a `shard_map` splits by hand, in the mesh's order."""
    manual = eqn.params.get("newly_manual_axes") or eqn.params.get("manual_axes") or eqn.params["mesh"].axis_names
    return tuple(name for name in eqn.params["mesh"].axis_names if name in manual)


def count(eqn: JaxprEqn) -> int:
    """How many shards there are."""
    return int(np.prod([eqn.params["mesh"].shape[name] for name in axes(eqn)]))


def _mapped(eqn: JaxprEqn, function: Callable[..., Pytree], ins: Pytree, outs: Pytree) -> Callable[..., Pytree]:
    """A function compiled under a `shard_map` over the mesh and the axes of the equation's own."""
    mesh = eqn.params["mesh"]
    compiled = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=ins, out_specs=outs, axis_names=set(axes(eqn)), check_vma=False))

    def put(spec: PartitionSpec, args: Pytree) -> Pytree:
        # On a mesh with explicit axes JAX wants to be given them so.
        return jax.tree.map(lambda x: x if isinstance(x, Tracer) else jax.device_put(x, NamedSharding(mesh, spec)), args)

    return lambda *args: compiled(*jax.tree.map(put, tuple(ins), args, is_leaf=lambda x: isinstance(x, PartitionSpec)))


@dataclass(frozen=True)
class Spread:
    """Where the values of a sharded body lie: on the shards of its equation, of which those in `lanes` run it."""

    eqn: JaxprEqn
    lanes: np.ndarray
    leaf: Leaf

    @property
    def count(self) -> int:
        """How many shards there are."""
        return len(self.lanes)

    @property
    def _stacked(self) -> PartitionSpec:
        return PartitionSpec(axes(self.eqn))

    def mapped(self, function: Callable[..., Pytree], lanes: np.ndarray) -> Callable[..., Pytree]:
        """A function of what one shard holds, compiled as one of what all hold; shards that are not in `lanes` give zeros."""

        def each(own_lane: jax.Array, stacked: Pytree) -> Pytree:
            own = jax.tree.map(lambda x: x[0], stacked)
            outs = function(*own) if lanes.all() else _only_where(own_lane[0], function, own)
            return jax.tree.map(lambda x: x[None], outs)

        over_all = _mapped(self.eqn, each, (self._stacked, self._stacked), self._stacked)
        return lambda *args: over_all(lanes, args)

    def fill(self, child: Run, args: Sequence[Array], lanes: np.ndarray) -> None:
        """Run a jaxpr, and those within it, on those shards."""
        own = replace(self, lanes=lanes)
        child.spread = None
        for run in compiled.fill(child, args, lambda program: self.mapped(program, lanes), lambda x: x, leaf=child.leaf or self.leaf):
            run.spread = own

    def split(self, mask: Mask, output: int) -> Mask:
        """A mask over a result of the `shard_map`, stacked over the shards that hold its parts."""
        local = _mapped(self.eqn, lambda x: x[None], (self.eqn.params["out_specs"][output],), self._stacked)
        return np.asarray(local(np.asarray(mask)))

    def join(self, stacked: Mask, operand: int) -> Mask:
        """A mask stacked over the shards, as one over the operand: an element is marked where any shard that holds it marks it."""
        spec = self.eqn.params["in_specs"][operand]
        used = {name for part in spec for name in (part if isinstance(part, tuple) else (part,)) if name}
        copies = tuple(name for name in axes(self.eqn) if name not in used)

        def gather(x: jax.Array) -> jax.Array:
            marks = x[0].astype(np.int32)
            return (lax.psum(marks, copies) if copies else marks) > 0

        return np.asarray(_mapped(self.eqn, gather, (self._stacked,), spec)(np.asarray(stacked)))

    def joined(self, stacked: Array, output: int) -> Array:
        """A result stacked over the shards as the `shard_map` gives it."""
        return _mapped(self.eqn, lambda x: x[0], (self._stacked,), self.eqn.params["out_specs"][output])(stacked)


def _only_where(lane: jax.Array, function: Callable[..., Pytree], args: Pytree) -> Pytree:
    """A function where it is to run, and zeros elsewhere: what never ran there may wait for ever, or for a collective."""
    shapes = jax.eval_shape(function, *args)
    nothing = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
    return lax.cond(lane, lambda given: function(*given), lambda given: nothing, args)


def opened(outer: Run, number: int) -> Run | None:
    """The body of a `shard_map` as it ran, its values and those of the calls in it stacked over the shards; None where it is not entered.

    Of one within another the shards are not told apart.
    """
    eqn = outer.jaxpr.eqns[number]
    over = entered(eqn, outer.ins(eqn)) if not outer.shards else None
    if over is None:
        return None
    child = walk.start(Inside(eqn.params["jaxpr"], tuple(range(len(eqn.invars)))), eqn, number, outer)
    spread = Spread(over, np.ones(count(over), bool), leaf)

    def lift(program: Traced) -> Traced:
        return _mapped(over, program, tuple(eqn.params["in_specs"]), PartitionSpec(axes(over)))

    for run in compiled.fill(child, outer.ins(eqn), lift, lambda value: value[None], leaf=child.leaf or leaf):
        run.spread = spread
    return child


def traced(eqn: JaxprEqn, ins: Sequence[Array], how: Leaf) -> Sequence[Array]:
    """The results of a `shard_map` whose equations are computed so."""
    body = walk.traced(eqn.params["jaxpr"], how)
    return _mapped(eqn, body, tuple(eqn.params["in_specs"]), list(eqn.params["out_specs"]))(*ins)


def computed(spread: walk.Spread, eqn: JaxprEqn, ins: Sequence[Array], how: Leaf) -> list[Array]:
    """The results of an equation on stacked operands; only what mixes shards, and what holds a program, is compiled for it."""
    if primitives.of(eqn).crosses or compat.sub_jaxprs(eqn):
        return list(spread.mapped(lambda *own: list(how(eqn, own)), spread.lanes)(*ins))
    each = [how(eqn, [x[shard] for x in ins]) for shard in range(spread.count)]
    return [jnp.stack(parts) for parts in zip(*each, strict=True)]


def leaf(eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
    """The results of an equation as it is traced in a shard; loops and branches whose jaxprs say what varies are traced anew."""
    if not meshes.says_what_varies(eqn):
        return compat.bind(eqn, ins)
    if primitives.of(eqn).loops:
        return loops.traced(loops.open_loop(eqn, ins, leaf))
    if primitives.of(eqn).branches:
        return walk.switched(eqn, ins, leaf)
    return compat.bind(eqn, ins)


def branches(run: Run, number: int) -> list[Run]:
    """The branches of a `cond` within a `shard_map` that some shards took, as those ran them."""
    eqn, spread = run.jaxpr.eqns[number], run.spread
    assert spread is not None
    ins = run.ins(eqn)
    taken, entered = np.clip(np.asarray(ins[0]), 0, len(eqn.params["branches"]) - 1), []
    for branch in map(int, np.unique(taken[spread.lanes])):
        inside = Inside(eqn.params["branches"][branch], tuple(range(1, len(ins))), branch, ("cond", branch))
        child = walk.start(inside, eqn, number, run)
        spread.fill(child, ins[1:], spread.lanes & (taken == branch))
        entered.append(child)
    return entered


def of_one(run: Run, shard: int) -> Run:
    """A run within a `shard_map` as one shard had it, and those that it stands in there."""
    around = run.parent if run.parent is not None and run.parent.shards else None
    return _of_one(run, shard, of_one(around, shard) if around is not None else None)


def _of_one(run: Run, shard: int, parent: Run | None) -> Run:
    own = Run(run.jaxpr, run.consts, run.path, run.eqns, run.entry, parent, run.operands, run.order, done=run.done)
    own.values = {var: value[shard] for var, value in run.values.items()}
    own.inner = {number: _of_one(child, shard, own) for number, child in run.inner.items()}
    return own


def flows_of(run: Run, eqn: JaxprEqn, ins: Sequence[Array], output: int) -> list[Flow]:
    """The flows of an equation in a run; inside a `shard_map` they take stacked masks, and stay in each shard but in a collective."""
    if not run.shards:
        return flows(eqn, ins, output)
    if primitives.of(eqn).crosses and primitives.of(eqn).hands_on and run.spread is not None and len(ins) == 1:
        with contextlib.suppress(Exception):
            return [_moved(run.spread, eqn, ins[0], output)]
    if primitives.of(eqn).crosses:
        return [_across(slot, tuple(np.shape(x)), _shape(eqn, output, run.shards)) for slot, x in enumerate(ins)]
    each = [flows(eqn, [np.asarray(x)[shard] for x in ins], output) for shard in range(run.shards)]
    return [_each(number, each) for number in range(len(each[0]))]


def _moved(spread: walk.Spread, eqn: JaxprEqn, x: Array, output: int) -> Flow:
    """The flow of a collective that only moves elements: it is run on their numbers, of which 0 is none's."""
    numbers = np.arange(1, 1 + math.prod(np.shape(x)), dtype=np.int32).reshape(np.shape(x))
    moved = spread.mapped(lambda own: compat.bind(eqn, [own]), spread.lanes)(numbers)[output]
    return from_numbers(np.asarray(moved) - 1, 0, tuple(np.shape(x)), 0)


def _shape(eqn: JaxprEqn, output: int, shards: int) -> tuple[int, ...]:
    return (shards, *compat.aval(eqn.outvars[output]).shape)


def _across(slot: int, shape: tuple[int, ...], out: tuple[int, ...]) -> Flow:
    """The flow of a collective: from each shard to all, element by element where the shapes are the same."""
    if shape == out:
        return Flow(slot, lambda mask: np.broadcast_to(mask.any(axis=0), out), lambda mask: np.broadcast_to(mask.any(axis=0), shape))
    return Flow(slot, lambda mask: np.broadcast_to(mask.any(), out), lambda mask: np.broadcast_to(mask.any(), shape))


def _each(number: int, each: Sequence[Sequence[Flow]]) -> Flow:
    """The flow of one operand within each shard; `each` has the flows of every shard."""

    def push(mask: Mask) -> Mask:
        return np.stack([shard[number].push(part) for shard, part in zip(each, mask, strict=True)])

    def pull(mask: Mask) -> Mask:
        return np.stack([shard[number].pull(part) for shard, part in zip(each, mask, strict=True)])

    return Flow(each[0][number].slot, push, pull)
