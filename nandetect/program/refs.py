"""Programs that write into mutable arrays (`jax.new_ref`): run equation by equation, each value must be the one that it was at the time."""

from __future__ import annotations

from nandetect import compat, primitives
from nandetect.compat import AnyJaxpr, Jaxpr


def without(traced: AnyJaxpr) -> AnyJaxpr:
    """A traced program with values in place of the mutable arrays that it makes; itself where it has none, or is given one."""
    jaxpr, _ = compat.open_jaxpr(traced)
    given = any(map(_is_ref, jaxpr.invars))
    return compat.without_refs(traced) if _has_refs(jaxpr) and not given else traced


def _has_refs(jaxpr: Jaxpr) -> bool:
    """Whether an equation makes or reads a mutable array, at any depth but in a kernel."""
    if any(map(_is_ref, (atom for eqn in jaxpr.eqns for atom in (*eqn.invars, *eqn.outvars)))):
        return True
    entered = [eqn for eqn in jaxpr.eqns if not primitives.of(eqn).opaque]
    return any(_has_refs(compat.open_jaxpr(sub)[0]) for eqn in entered for _, sub in compat.sub_jaxprs(eqn))


def _is_ref(atom: compat.Atom) -> bool:
    return hasattr(atom.aval, "inner_aval")
