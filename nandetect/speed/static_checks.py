"""What a traced step shows without being run: its operations, its callbacks, where float32 is widened, which arguments are its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from nandetect import compat
from nandetect.program import sources
from nandetect.records import Frame

Path = tuple[Any, ...]
# What says no more of an element than where it goes.
_SAME = frozenset({"convert_element_type", "copy", "copy_p", "reshape", "squeeze", "broadcast_in_dim", "sharding_constraint"})
_ADDS = frozenset({"add", "sub", "add_any"})
# Who writes this wants it.
_MEANT = ("float64", "double", "longdouble")
_CALLS = frozenset({"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint"})


@dataclass(frozen=True, slots=True)
class Found:
    """An equation that was looked for, with those around it, outermost first."""

    eqn: Any
    path: Path

    @property
    def where(self) -> Frame | None:
        """The user's line."""
        return sources.source(self.eqn, self.path)

    @property
    def code(self) -> str:
        """The piece of source there; empty where it is not known."""
        where = self.where
        return sources.excerpt(where) if where else ""


def every(jaxpr: Any, path: Path = ()) -> Iterator[Found]:
    """Every equation in program order, an enclosing one before those in it."""
    for eqn in jaxpr.eqns:
        yield Found(eqn, path)
        for _, inner in compat.sub_jaxprs(eqn):
            yield from every(compat.open_jaxpr(inner)[0], (*path, eqn))


def operations(jaxpr: Any) -> int:
    """How many operations a step is, run one by one; a loop, which is compiled by itself, counts as one."""
    counts = [
        operations(compat.open_jaxpr(inner)[0]) for eqn in jaxpr.eqns if eqn.primitive.name in _CALLS for _, inner in compat.sub_jaxprs(eqn)
    ]
    return sum(eqn.primitive.name not in _CALLS for eqn in jaxpr.eqns) + sum(counts)


def callbacks(jaxpr: Any) -> list[Found]:
    """What calls back to the host: `pure_callback`, `io_callback`, `jax.debug.print` and `jax.debug.callback`."""
    return [found for found in every(jaxpr) if found.eqn.primitive.name in compat.CALLBACKS | compat.DEBUG]


def needs_host(jaxpr: Any) -> bool:
    """Whether an `io_callback` returns something: it has an effect, and cannot be done without."""
    return any(found.eqn.primitive.name == "io_callback" and found.eqn.outvars for found in every(jaxpr))


def widened(jaxpr: Any) -> list[Found]:
    """Where arrays of float32, or less, become float64 without a word of it on the line."""
    return [found for found in every(jaxpr) if _widens(found.eqn) and not any(word in found.code for word in _MEANT)]


def narrow_operand(eqn: Any) -> Any:
    """The first array of float32, or less, that an equation takes; None without one."""
    arrays = [atom for atom in eqn.invars if not isinstance(atom, compat.Literal) and getattr(atom.aval, "size", 0) > 1]
    return next((atom for atom in arrays if jnp.issubdtype(atom.aval.dtype, jnp.floating) and atom.aval.dtype.itemsize <= 4), None)


def _widens(eqn: Any) -> bool:
    # A product of matrices takes them as they are: not only a conversion widens.
    wide = any(getattr(var.aval, "dtype", None) == jnp.float64 for var in eqn.outvars)
    return wide and narrow_operand(eqn) is not None and not compat.sub_jaxprs(eqn) and not compat.is_opaque(eqn)


def state(jaxpr: Any, groups: Sequence[Sequence[int]]) -> list[int]:
    """Which groups of the inputs are state: what the step gives back in their place, shape by shape.

    `groups` are the inputs of each argument. A gradient has the shapes of the parameters too: so at least one group must be seen to be
    updated, which is that something is added to an input and returned. Its companions (a momentum) are then state as well.
    """
    free = [var.aval for var in jaxpr.outvars if not isinstance(var, compat.Literal)]
    returned = []
    for number, group in enumerate(groups):
        wanted = [jaxpr.invars[at].aval for at in group]
        rest = list(free)
        if wanted and all(_take(rest, aval) for aval in wanted):
            returned.append(number)
            free = rest
    updated = _updated(jaxpr)
    is_step = any(jaxpr.invars[at] in updated for number in returned for at in groups[number])
    return returned if is_step else []


def _take(free: list[Any], wanted: Any) -> bool:
    for at, aval in enumerate(free):
        if getattr(aval, "shape", None) == wanted.shape and getattr(aval, "dtype", None) == wanted.dtype:
            del free[at]
            return True
    return False


def _updated(jaxpr: Any) -> set[Any]:
    """The inputs of which some output is the sum of it and something else."""
    made = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}

    def origin(var: Any) -> Any:
        while not isinstance(var, compat.Literal) and var in made and made[var].primitive.name in _SAME:
            var = made[var].invars[0]
        return var

    found = set()
    for out in map(origin, jaxpr.outvars):
        eqn = None if isinstance(out, compat.Literal) else made.get(out)
        if eqn is not None and eqn.primitive.name in _ADDS:
            found |= {term for term in map(origin, eqn.invars) if not isinstance(term, compat.Literal) and _size(term) == _size(out)}
        elif eqn is not None and eqn.primitive.name in _CALLS:
            # An update that is jitted by itself.
            inner = compat.open_jaxpr(compat.sub_jaxprs(eqn)[0][1])[0]
            inside = _updated(inner)
            given = [origin(given) for var, given in zip(inner.invars, eqn.invars, strict=False) if var in inside]
            found |= {var for var in given if not isinstance(var, compat.Literal)}
    return found & set(jaxpr.invars)


def _size(var: Any) -> Any:
    return getattr(var.aval, "shape", None)
