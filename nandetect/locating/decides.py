"""Whether a loss, a metric or a state depends on what broke: measured, by putting other values in its place and going on from there.

Values are followed only while they differ, and never through the backward pass: what only gradients take up reaches no result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import AnyJaxpr, Atom, JaxprEqn, Var
from nandetect.interpret import loops, mended, shards
from nandetect.interpret.loops import Loop
from nandetect.interpret.walk import Run, variables
from nandetect.locating.made import maker
from nandetect.locating.trail import Birth, Node
from nandetect.program.phase import Phases

# A predicate may take one finite value as it takes a NaN or an inf; hardly one takes all of these so, the last of which is huge.
INSTEAD = (1.0, 0.0, -1.0, None)
# With other values a `while` may wait for ever: this ends it.
_COMPUTE = mended.leaf(())
# How a result depends on a value: broken by it, computed with it (1 / inf is 0), or chosen for its sake (by `isfinite`, a comparison).
How = Literal["broken", "computed", "chosen"]


class Other(NamedTuple):
    """A value, the one that it was, and whether it was chosen by a predicate on the way. What gradients alone broke is sound in both."""

    before: Array
    value: Array
    chosen: bool = False


Changed: TypeAlias = dict[Var, Other]


def how(birth: Birth, phases: Phases) -> How | None:
    """How some result of the program, or a loss that it drops, depends on a birth; None where it would be the same with other values."""
    node, var = birth.node, birth.node.eqn.outvars[birth.output]
    value, found = node.run.read(var), None
    for number in INSTEAD:
        instead = jnp.asarray(-jnp.finfo(value.dtype).max / 2 if number is None else number, value.dtype)
        other = Other(value, jnp.where(birth.mask, instead, jnp.asarray(value)))
        for end in _ends(node.run, {var: other}, node.number + 1, phases):
            if end.chosen:
                return "chosen"
            if nonfinite.is_inexact(end.before) and not nonfinite.is_clean(end.before):
                return "broken"
            found = "computed"
    return found


def _ends(run: Run, changed: Changed, start: int, phases: Phases) -> Iterator[Other]:
    """What changed values of a run come to: results of the program, or losses that it drops."""
    yield from _through(run, changed, start, phases)
    if run.parent is None:
        yield from (changed[atom] for atom in variables(run.jaxpr.outvars) if atom in changed)
        return
    outside, number = _left(run, changed, phases), run.path[-2]
    if drops(run.eqns[-1], used(run.parent), outside) and phases.of((*run.parent.path, number)) == "forward":
        # What is read goes on; only what is dropped ends here.
        yield from (other for var, other in outside.items() if var not in used(run.parent))
    if outside:
        yield from _ends(run.parent, outside, number + 1, phases)


def _through(run: Run, changed: Changed, start: int, phases: Phases) -> Iterator[Other]:
    """Go on through a run with changed values, entering into `changed` what they change; yields losses that are dropped on the way."""
    read = used(run)
    for number in range(start, run.done):
        eqn = run.jaxpr.eqns[number]
        if not any(atom in changed for atom in variables(eqn.invars)) or phases.of((*run.path, number)) == "backward":
            continue
        if _entered(run, number, changed):
            child = run.inner[number]
            inside = {var: changed[atom] for var, atom in _arguments(child, eqn) if atom in changed}
            yield from _through(child, inside, 0, phases)
            after = _results(child.jaxpr.outvars, eqn, inside)
        elif primitives.of(eqn).loops and _differentiates(eqn, (*run.path, number), phases):
            # A training loop: what changes in it changes by gradients too, and the two cannot be told apart from without.
            continue
        else:
            after = _differing(run, eqn, changed, phases)
        changed |= after
        if drops(eqn, read, after) and phases.of((*run.path, number)) == "forward":
            yield from (other for var, other in after.items() if var not in read)


def _entered(run: Run, number: int, changed: Changed) -> bool:
    """Whether an equation can be followed inside: not where another branch may be chosen."""
    eqn = run.jaxpr.eqns[number]
    indices = variables(eqn.invars[:1]) if eqn.primitive.name == "cond" else []
    return number in run.inner and not any(index in changed for index in indices)


def _arguments(child: Run, eqn: JaxprEqn) -> list[tuple[Var, Var]]:
    pairs = zip(child.jaxpr.invars, child.operands, strict=True)
    return [(var, atom) for var, slot in pairs for atom in variables([eqn.invars[slot]])]


def _results(inner: Sequence[Atom], eqn: JaxprEqn, changed: Changed) -> Changed:
    pairs = zip(inner, eqn.outvars, strict=True)
    return {outer: changed[atom] for atom, outer in pairs if not isinstance(atom, compat.Literal) and atom in changed}


def _differing(run: Run, eqn: JaxprEqn, changed: Changed, phases: Phases) -> Changed:
    """The results of an equation that changed operands change. It is run on both: stored values may be those of a compiled program."""
    others = [None if isinstance(atom, compat.Literal) else changed.get(atom) for atom in eqn.invars]
    pairs = zip(eqn.invars, others, strict=True)
    before = [_without_gradients(run, atom, phases) if other is None else other.before for atom, other in pairs]
    after = [value if other is None else other.value for value, other in zip(before, others, strict=True)]
    chosen = any(other is not None and other.chosen for other in others) or _chooses(eqn)
    made = zip(eqn.outvars, _computed(run, eqn, before), _computed(run, eqn, after), strict=True)
    return {var: Other(old, new, chosen) for var, old, new in made if not _same(old, new)}


def _without_gradients(run: Run, atom: Atom, phases: Phases) -> Array:
    """A value, sound where it is made of gradients and broken: beside a NaN of theirs, nothing shows what else is computed."""
    value = run.read(atom)
    if not nonfinite.is_inexact(value) or nonfinite.is_clean(value):
        return value
    made_in, _, number = maker(run, atom)
    is_of_gradients = number is not None and phases.of((*made_in.path, number)) != "forward"
    return mended.argument(value) if is_of_gradients else value


def _computed(run: Run, eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
    return _COMPUTE(eqn, ins) if run.spread is None else shards.computed(run.spread, eqn, ins, _COMPUTE)


def _chooses(eqn: JaxprEqn) -> bool:
    """Whether an equation, or one within it, makes of floating numbers what is none: a truth value, an index."""
    asks = any(map(nonfinite.is_inexact, _avals(eqn.invars))) and not all(map(nonfinite.is_inexact, _avals(eqn.outvars)))
    subs: list[AnyJaxpr] = [sub for _, sub in compat.sub_jaxprs(eqn)]
    return any(map(_chooses, (inner for sub in subs for inner in compat.open_jaxpr(sub)[0].eqns))) if subs else asks


def _avals(atoms: Sequence[Atom]) -> Iterable[object]:
    return (atom.aval for atom in atoms)


def _same(old: Array, new: Array) -> bool:
    if jnp.issubdtype(new.dtype, jax.dtypes.extended):
        return False
    old, new = nonfinite.host(old), nonfinite.host(new)
    return bool(np.array_equal(old, new, equal_nan=new.dtype.kind in "fc"))


def _left(run: Run, changed: Changed, phases: Phases) -> Changed:
    """The values of the enclosing run that the changed results of a run change."""
    assert run.parent is not None
    node, atoms = Node(run.parent, run.path[-2]), run.jaxpr.outvars
    if not primitives.of(node.eqn).loops:
        outside = _results(atoms, node.eqn, changed)
        return outside if run.spread is node.run.spread else {var: _outside(node, run, var, other) for var, other in outside.items()}
    others = [None if isinstance(atom, compat.Literal) else changed.get(atom) for atom in atoms]
    if not any(others):
        return {}
    loop, step = loops.opened(node.run, node.number), run.order[-1]
    before = [run.read(atom) if other is None else other.before for atom, other in zip(atoms, others, strict=True)]
    after = [value if other is None else other.value for value, other in zip(before, others, strict=True)]
    if _differentiates(node.eqn, node.path, phases):
        # Of a training loop only the iteration itself can be told apart from its gradients.
        (old_carry, old_rows), (carry, rows) = (before[: loop.carry], []), (after[: loop.carry], [])
    else:
        # Compiled once for both.
        most = loops.most_iterations(node.eqn, node.run.eqns)

        def rest(ins: list[Array], outs: list[Array]) -> tuple[list[Array], list[Array]]:
            return _rest(loops.open_loop(node.eqn, ins, _COMPUTE), step, outs, most)

        compiled = jax.jit(rest) if loop.spread is None else loop.spread.mapped(rest, loop.spread.lanes)
        (old_carry, old_rows), (carry, rows) = compiled(list(loop.ins), before), compiled(list(loop.ins), after)
    chosen = any(other is not None and other.chosen for other in others) or _chooses(node.eqn)
    carried = zip(node.eqn.outvars, old_carry, carry, strict=False)
    outside = {var: Other(old, new, chosen) for var, old, new in carried if not _same(old, new)}
    for number, var in enumerate(node.eqn.outvars[loop.carry :]):
        if others[loop.carry + number] is not None or (rows and not _same(old_rows[number], rows[number])):
            whole = node.run.read(var)
            stacked = jnp.moveaxis(jnp.asarray(whole), loop.axis, 0).at[loop.row(step)].set(after[loop.carry + number])
            if rows:
                stacked = stacked.at[_later(loop, step)].set(jnp.moveaxis(rows[number], loop.axis, 0))
            outside[var] = Other(whole, jnp.moveaxis(stacked, 0, loop.axis), chosen)
    return outside


def _outside(node: Node, run: Run, var: Var, other: Other) -> Other:
    """A result of a sharded body as the `shard_map` gives it; of a branch in one, with what it is on the shards that took another."""
    assert run.spread is not None
    if node.run.spread is None:
        output = node.output(var)
        return other._replace(before=run.spread.joined(other.before, output), value=run.spread.joined(other.value, output))
    lanes = run.spread.lanes.reshape(-1, *[1] * (np.ndim(other.value) - 1))
    elsewhere = jnp.asarray(node.run.read(var))
    return other._replace(before=jnp.where(lanes, other.before, elsewhere), value=jnp.where(lanes, other.value, elsewhere))


def _later(loop: Loop, step: int) -> slice:
    """The rows of a scan that iterations after `step` read."""
    return slice(0, loop.row(step)) if loop.reverse else slice(loop.row(step) + 1, None)


def _rest(loop: Loop, step: int, outs: Sequence[Array], most: int) -> tuple[list[Array], list[Array]]:
    """The carried values and the rows of a loop that goes on to its end from the results of an iteration."""
    condition, carry = loop.condition, list(outs[: loop.carry])

    def body(carry: Sequence[Array], row: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        made = loop.function(*loop.consts, *carry, *row)
        return list(made[: loop.carry]), list(made[loop.carry :])

    if condition is not None:
        return list(loops.bounded(condition, lambda c: loop.kept(c, body(c, ())[0]), carry, most)), []
    rows = [x[_later(loop, step)] for x in loop.rows]
    return lax.scan(body, carry, rows, loop.length - 1 - step, loop.reverse)


def _differentiates(eqn: JaxprEqn, path: Sequence[int], phases: Phases) -> bool:
    """Whether an equation has a backward pass within."""
    return any(
        phases.of(own := (*path, slot, number)) == "backward" or _differentiates(inner, own, phases)
        for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn))
        for number, inner in enumerate(compat.open_jaxpr(sub)[0].eqns)
    )


def drops(eqn: JaxprEqn, read: set[Var], made: Collection[Var]) -> bool:
    """Whether results of an equation are dropped that somebody may have wanted, as a plain `grad` drops its loss.

    An equation that makes several results at once drops the one or other as a matter of course.
    """
    unread = [var for var in eqn.outvars if var not in read]
    return any(var in made for var in unread) and (len(unread) == len(eqn.outvars) or bool(compat.sub_jaxprs(eqn)))


def used(run: Run) -> set[Var]:
    """The variables of a run that some equation reads, or that leave it for somebody who reads them."""
    if run.used is None:
        read: list[Atom] = [atom for eqn in run.jaxpr.eqns for atom in eqn.invars]
        run.used = set(variables([*read, *_leaving(run)]))
    return run.used


def _leaving(run: Run) -> Iterator[Atom]:
    """The results of a run but those that the program around it drops: a loop may stack losses that nobody returns."""
    if run.parent is None:
        yield from run.jaxpr.outvars
        return
    eqn, read = run.eqns[-1], used(run.parent)
    carried = _carried(eqn)
    for result, (inner, outer) in enumerate(zip(run.jaxpr.outvars, eqn.outvars, strict=False)):
        # Carried results are read by the loop's next iteration.
        if result < carried or outer in read:
            yield inner


def _carried(eqn: JaxprEqn) -> int:
    """How many of an equation's results are carried from iteration to iteration."""
    if not primitives.of(eqn).loops:
        return 0
    return compat.scan_parts(eqn)[1] if eqn.primitive.name == "scan" else len(eqn.outvars)
