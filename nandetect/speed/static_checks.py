"""What a traced step shows without being run: its operations, its callbacks, where float32 is widened, which arguments are its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.core import ShapedArray

from nandetect import compat, primitives
from nandetect.program import sources
from nandetect.records import Frame

Enclosing: TypeAlias = tuple[compat.JaxprEqn, ...]
# Words on a line which say that float64 is meant there.
_MEANT = ("float64", "double", "longdouble")


@dataclass(frozen=True, slots=True)
class PlacedEquation:
    """An equation that was looked for, with those that enclose it, outermost first."""

    eqn: compat.JaxprEqn
    enclosing: Enclosing

    @property
    def where(self) -> Frame | None:
        """The user's line."""
        return sources.source(self.eqn, self.enclosing)

    @property
    def code(self) -> str:
        """The piece of source there; empty where it is not known."""
        where = self.where
        return sources.excerpt(where) if where else ""


def every(jaxpr: compat.Jaxpr, enclosing: Enclosing = ()) -> Iterator[PlacedEquation]:
    """Every equation in program order, an enclosing one before those in it."""
    for eqn in jaxpr.eqns:
        yield PlacedEquation(eqn, enclosing)
        for _, inner in compat.sub_jaxprs(eqn):
            yield from every(compat.open_jaxpr(inner)[0], (*enclosing, eqn))


def operations(jaxpr: compat.Jaxpr) -> int:
    """How many operations a step is, run one by one; a loop, which is compiled by itself, counts as one."""
    counts = [
        operations(compat.open_jaxpr(inner)[0]) for eqn in jaxpr.eqns if primitives.of(eqn).calls for _, inner in compat.sub_jaxprs(eqn)
    ]
    return sum(not primitives.of(eqn).calls for eqn in jaxpr.eqns) + sum(counts)


def callbacks(jaxpr: compat.Jaxpr) -> list[PlacedEquation]:
    """The equations that call back to the host: `pure_callback`, `io_callback`, `jax.debug.print` and `jax.debug.callback`."""
    return [placed for placed in every(jaxpr) if primitives.of(placed.eqn).calls_back or primitives.of(placed.eqn).prints]


def needs_host(jaxpr: compat.Jaxpr) -> bool:
    """Whether an `io_callback` returns something: it has an effect, and cannot be done without."""
    return any(placed.eqn.primitive.name == "io_callback" and placed.eqn.outvars for placed in every(jaxpr))


def widened(jaxpr: compat.Jaxpr) -> list[PlacedEquation]:
    """Where arrays of float32, or less, become float64 without a word of it on the line."""
    return [placed for placed in every(jaxpr) if _widens(placed.eqn) and not any(word in placed.code for word in _MEANT)]


def holds_wide_constants(jaxpr: compat.AnyJaxpr, consts: Sequence[object]) -> bool:
    """Whether a step closes over arrays of numpy's in 64 bits: its constants, or those of a jaxpr within it.

    JAX keeps what it made of such an array without x64, and gives it to the same function with x64, which then cannot be lowered.
    """
    subs = [sub for eqn in compat.open_jaxpr(jaxpr)[0].eqns for _, sub in compat.sub_jaxprs(eqn)]
    return any(map(_is_wide, consts)) or any(holds_wide_constants(sub, compat.open_jaxpr(sub)[1]) for sub in subs)


def _is_wide(const: Any) -> bool:
    return not isinstance(const, jax.Array) and getattr(const, "ndim", 0) > 0 and const.dtype.itemsize > 4


def narrow_operand(eqn: compat.JaxprEqn) -> compat.Var | None:
    """The first array of float32, or less, that an equation takes; None without one."""
    arrays = [atom for atom in eqn.invars if not isinstance(atom, compat.Literal) and getattr(compat.aval(atom), "size", 0) > 1]
    return next((atom for atom in arrays if jnp.issubdtype(dtype := compat.aval(atom).dtype, jnp.floating) and dtype.itemsize <= 4), None)


def _widens(eqn: compat.JaxprEqn) -> bool:
    # Equations of any kind may widen: a product of matrices takes float32 and gives float64 without a conversion.
    wide = any(getattr(var.aval, "dtype", None) == jnp.float64 for var in eqn.outvars)
    return wide and narrow_operand(eqn) is not None and not compat.sub_jaxprs(eqn) and not primitives.of(eqn).opaque


def state(jaxpr: compat.Jaxpr, groups: Sequence[Sequence[int]]) -> list[int]:
    """Which groups of the inputs are state: what the step gives back in their place, shape by shape.

    `groups` are the inputs of each argument. A gradient has the shapes of the parameters too: so at least one group must be seen to be
    updated, which is that something is added to an input and returned. Its companions (a momentum) are then state as well.
    """
    free = [compat.aval(var) for var in jaxpr.outvars if not isinstance(var, compat.Literal)]
    returned: list[int] = []
    for number, group in enumerate(groups):
        wanted = [compat.aval(jaxpr.invars[slot]) for slot in group]
        rest = list(free)
        if wanted and all(_take(rest, aval) for aval in wanted):
            returned.append(number)
            free = rest
    updated = _updated(jaxpr)
    is_step = any(jaxpr.invars[slot] in updated for number in returned for slot in groups[number])
    return returned if is_step else []


def _take(free: list[ShapedArray], wanted: ShapedArray) -> bool:
    """Take an array like the wanted one out of the free ones; whether there was one."""
    for number, aval in enumerate(free):
        if getattr(aval, "shape", None) == wanted.shape and getattr(aval, "dtype", None) == wanted.dtype:
            del free[number]
            return True
    return False


def _updated(jaxpr: compat.Jaxpr) -> set[compat.Var]:
    """The inputs of which some output is the sum of it and something else."""
    makers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}

    def origin(atom: compat.Atom) -> compat.Atom:
        while not isinstance(atom, compat.Literal) and atom in makers and primitives.of(makers[atom]).same:
            atom = makers[atom].invars[0]
        return atom

    terms: set[compat.Var] = set()
    for out in map(origin, jaxpr.outvars):
        eqn = None if isinstance(out, compat.Literal) else makers.get(out)
        if eqn is not None and primitives.of(eqn).adds:
            terms |= {term for term in map(origin, eqn.invars) if not isinstance(term, compat.Literal) and _shape(term) == _shape(out)}
        elif eqn is not None and primitives.of(eqn).calls:
            # Calls may hold an update that is jitted by itself.
            inner, _ = compat.open_jaxpr(compat.sub_jaxprs(eqn)[0][1])
            inside = _updated(inner)
            given = [origin(operand) for var, operand in zip(inner.invars, eqn.invars, strict=False) if var in inside]
            terms |= {operand for operand in given if not isinstance(operand, compat.Literal)}
    return terms & set(jaxpr.invars)


def _shape(atom: compat.Atom) -> tuple[int, ...] | None:
    return getattr(compat.aval(atom), "shape", None)
