"""`shard_map`, looked into: every value inside as each device had it, stacked over the devices along a first axis.

The body runs as one sharded program that returns all its intermediates, so that collectives do what they did. Loops and branches in
it are not entered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from nandetect import compat, primitives
from nandetect.annotations import Array, Pytree
from nandetect.compat import JaxprEqn
from nandetect.interpret import compiled, walk
from nandetect.interpret.compiled import Traced
from nandetect.interpret.dependence import Flow, flows
from nandetect.interpret.walk import Inside, Run
from nandetect.nonfinite import Mask


def can_enter(eqn: JaxprEqn) -> bool:
    """Whether the devices of a `shard_map` are all this process's own: a collective started on one process alone would hang."""
    return isinstance(eqn.params.get("mesh"), Mesh) and jax.process_count() == 1


def axes(eqn: JaxprEqn) -> tuple[str, ...]:
    """The mesh axes that a `shard_map` splits by hand, in the mesh's order."""
    manual = eqn.params.get("newly_manual_axes") or eqn.params.get("manual_axes") or eqn.params["mesh"].axis_names
    return tuple(name for name in eqn.params["mesh"].axis_names if name in manual)


def count(eqn: JaxprEqn) -> int:
    """How many shards there are."""
    return int(np.prod([eqn.params["mesh"].shape[name] for name in axes(eqn)]))


def _mapped(eqn: JaxprEqn, function: Callable[..., Pytree], ins: Pytree, outs: Pytree, check: bool) -> Callable[..., Pytree]:
    """A function compiled under a `shard_map` over the mesh and the axes of the equation's own."""
    return jax.jit(
        jax.shard_map(function, mesh=eqn.params["mesh"], in_specs=ins, out_specs=outs, axis_names=set(axes(eqn)), check_vma=check)
    )


def opened(outer: Run, number: int) -> Run:
    """The body of a `shard_map` as it ran, its values and those of the calls in it stacked over the shards."""
    eqn = outer.jaxpr.eqns[number]
    inside = Inside(eqn.params["jaxpr"], tuple(range(len(eqn.invars))))
    child = walk.start(inside, eqn, number, outer)
    stacked, check = PartitionSpec(axes(eqn)), bool(eqn.params["check_vma"])

    def lift(program: Traced) -> Traced:
        return _mapped(eqn, program, tuple(eqn.params["in_specs"]), stacked, check)

    leaf = compat.bind_varying if check else compat.bind
    for run in compiled.fill(child, outer.ins(eqn), lift, lambda value: value[None], leaf=leaf):
        run.shards = count(eqn)
    return child


def split(eqn: JaxprEqn, mask: Mask, output: int) -> Mask:
    """A mask over a result of the `shard_map`, stacked over the shards that hold its parts."""
    local = _mapped(eqn, lambda x: x[None], (eqn.params["out_specs"][output],), PartitionSpec(axes(eqn)), False)
    return np.asarray(local(np.asarray(mask)))


def join(eqn: JaxprEqn, stacked: Mask, operand: int) -> Mask:
    """A mask stacked over the shards, as one over the operand: an element is marked where any shard that holds it marks it."""
    names, spec = axes(eqn), eqn.params["in_specs"][operand]
    used = {name for part in spec for name in (part if isinstance(part, tuple) else (part,)) if name}
    copies = tuple(name for name in names if name not in used)

    def gather(x: jax.Array) -> jax.Array:
        marks = x[0].astype(np.int32)
        return (jax.lax.psum(marks, copies) if copies else marks) > 0

    return np.asarray(_mapped(eqn, gather, (PartitionSpec(names),), spec, False)(np.asarray(stacked)))


def flows_of(run: Run, eqn: JaxprEqn, ins: Sequence[Array], output: int) -> list[Flow]:
    """The flows of an equation in a run; inside a `shard_map` they take stacked masks, and stay in each shard but in a collective."""
    if not run.shards:
        return flows(eqn, ins, output)
    if primitives.of(eqn).crosses:
        return [_across(slot, tuple(np.shape(x)), _shape(eqn, output, run.shards)) for slot, x in enumerate(ins)]
    each = [flows(eqn, [np.asarray(x)[shard] for x in ins], output) for shard in range(run.shards)]
    return [_each(number, each) for number in range(len(each[0]))]


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
