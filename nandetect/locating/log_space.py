"""A -inf that was there before and goes through `log(sum(exp(x)))`: the logarithm of a probability of 0, given back as it came."""

from __future__ import annotations

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Atom, JaxprEqn, Var
from nandetect.interpret.shards import flows_of
from nandetect.interpret.walk import Run
from nandetect.nonfinite import Mask

# The most equations between a logarithm and what it undoes, and the most elements that are told apart where some were not meant.
FARTHEST, MOST_APART = 24, 64
# Elements that are -inf, by the variable that holds them.
Exponents = dict[Var, Mask]


def meant(run: Run, number: int, mask: Mask) -> tuple[Mask, Exponents]:
    """Those of some elements that a logarithm gives back as the -inf whose exponentials it took the logarithm of, and these.

    A sum of exponentials that are 0 by underflow is no such 0: something was lost.
    """
    eqn = run.jaxpr.eqns[number]
    none = np.zeros(mask.shape, bool)
    if not primitives.of(eqn).undoes or not np.isneginf(np.real(nonfinite.host(run.read(eqn.outvars[0]))[mask])).all():
        return none, {}
    all_of_it = _exponents(run, eqn, mask)
    if all_of_it or int(mask.sum()) > MOST_APART:
        return (mask if all_of_it else none), all_of_it
    found: Exponents = {}
    for index in np.argwhere(mask):
        single = nonfinite.mask_of(mask.shape, tuple(index))
        of_one = _exponents(run, eqn, single)
        mask = mask if of_one else mask & ~single
        for var, elements in of_one.items():
            found[var] = found[var] | elements if var in found else elements
    return mask, found


def _exponents(run: Run, eqn: JaxprEqn, mask: Mask) -> Exponents:
    """The -inf whose exponentials are all that the logarithm of these elements was taken of; none where a 0 came about otherwise."""
    found: Exponents = {}
    return found if _are_exponentials(run, eqn.invars[0], mask, primitives.of(eqn).undoes, found, FARTHEST) else {}


def _are_exponentials(run: Run, atom: Atom, mask: Mask, undone: frozenset[str], found: Exponents, left: int) -> bool:
    """Whether these elements, each of which is 0, are exponentials of -inf, or made of nothing else."""
    number = run.maker(atom)
    if number is None or number in run.inner or isinstance(atom, compat.Literal) or not left or not mask.any():
        return not mask.any()
    eqn = run.jaxpr.eqns[number]
    record, ins = primitives.of(eqn), run.ins(eqn)
    pulled = {flow.slot: flow.pull(mask) for flow in flows_of(run, eqn, ins, eqn.outvars.index(atom))}
    if record.name in undone:
        operand = eqn.invars[0]
        if isinstance(operand, compat.Literal) or not np.isneginf(nonfinite.host(ins[0])[mask]).all():
            return False
        found[operand] = found[operand] | mask if operand in found else mask
        return True
    keeps = record.hands_on or record.casts or record.adds or (record.zero_at_zero and not record.multiplies and not record.underflows)
    zeros = [slot for slot, elements in pulled.items() if not nonfinite.host(ins[slot])[elements].any()]
    if keeps or (record.sums and not record.multiplies):
        followed = zeros if len(zeros) == len(pulled) else []
    else:
        followed = zeros[:1] if record.multiplies and not record.sums else []
    return bool(followed) and all(_are_exponentials(run, eqn.invars[slot], pulled[slot], undone, found, left - 1) for slot in followed)
