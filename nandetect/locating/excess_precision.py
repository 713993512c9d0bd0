"""Births that only the replay has: what the compiler computes more widely, or does not compute at all, is no fault of the program.

XLA keeps float16 and bfloat16 products in float32 while they are fused, and turns a product with a mask into a select.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import Atom, Var
from nandetect.interpret import compiled
from nandetect.interpret.walk import Run, variables
from nandetect.locating.trail import Node, Trail
from nandetect.nonfinite import Mask

NARROW = frozenset({"float16", "bfloat16"})
# How many equations after a birth are looked at: the compiler departs from the program only within one fused group.
NEXT = 4


def is_doubtful(chain: Sequence[Node]) -> bool:
    """Whether the compiled program may not have the bad value that was born at the first of these equations and carried by the next."""
    return any(map(_is_doubtful, chain[: NEXT + 1]))


def _is_doubtful(node: Node) -> bool:
    run, eqn = node.run, node.eqn
    if run.shards or not run.knows_ins(eqn):
        return False
    if primitives.of(eqn).fuses_wider and str(compat.aval(eqn.outvars[0]).dtype) in NARROW:
        return True
    return eqn.primitive.name == "mul" and any(
        not isinstance(atom, compat.Literal) and _was_boolean(node, atom) and _is_mask(run.read(atom)) for atom in eqn.invars
    )


def _is_mask(value: Array) -> bool:
    array = nonfinite.host(value)
    return bool(np.isin(array, (0, 1)).all())


def _was_boolean(node: Node, atom: Atom) -> bool:
    """Whether an operand is a mask that the program itself made of booleans: of any other the compiler knows nothing."""
    maker = node.run.maker(atom)
    if maker is None:
        return False
    eqn = node.run.jaxpr.eqns[maker]
    return eqn.primitive.name == "convert_element_type" and str(compat.aval(eqn.invars[0]).dtype) == "bool"


def stands(trail: Trail, chain: Sequence[Node], top: Run, args: list[Array], symptoms: list[Atom]) -> bool:
    """Whether a compiled run that shows the symptoms has the birth's consequences too; True where that cannot be seen.

    The birth itself is not asked for: storing it would round it to the very type that the compiler avoids.
    """
    after = {node: next(iter(trail.asked[node].items())) for node in chain[1 : NEXT + 1]}
    kept = {node.eqn.outvars[output] for node, (output, _) in after.items()}
    kept |= set(variables(symptoms))
    again = compiled.run(Run(top.jaxpr, top.consts, tape=top.tape), args, kept.__contains__)
    if all(nonfinite.is_clean(again.read(atom)) for atom in symptoms):
        return True
    return all(_shows(_same_run(again, node.run), node.eqn.outvars[output], mask) for node, (output, mask) in after.items())


def _same_run(top: Run, run: Run) -> Run | None:
    """The run in `top` that stands where `run` stood."""
    place: Run | None = top
    for number in run.path[::2]:
        place = place.inner.get(number) if place is not None else None
    return place


def _shows(run: Run | None, var: Var, mask: Mask) -> bool:
    return run is None or var not in run.values or bool((nonfinite.bad(run.values[var]) & mask).any())
