"""The evaluation of a jaxpr in exact numbers, equation by equation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import AnyJaxpr, Atom, Jaxpr, JaxprEqn
from nandetect.errors import UsageError
from nandetect.interpret import walk
from nandetect.truth import elementwise, moving, reductions, whole  # noqa: F401  (they fill the table)
from nandetect.truth.table import RULES, is_exact, lifted

# Iterations after which a while loop is given up: one that ends because of rounding need not end in exact arithmetic.
MOST_ITERATIONS = 1 << 15


def run(jaxpr: Jaxpr, consts: Sequence[Array], args: Sequence[Array]) -> Sequence[Array]:
    """The results of a jaxpr. Raises `Unclear` where the precision in force does not decide what it must."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], map(exact_or_plain, [*consts, *args]), strict=True))

    def read(atom: Atom) -> Array:
        return exact_or_plain(walk.literal(atom)) if isinstance(atom, compat.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        outs = apply(eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def exact_or_plain(x: Array) -> Array:
    """An array as the rules take it: floats as exact numbers, anything else as it is."""
    return lifted(x) if is_exact(x) or nonfinite.is_inexact(x) else x


def apply(eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
    """The results of one equation."""
    name = eqn.primitive.name
    if primitives.of(eqn).prints:
        return []
    if name == "scan":
        return scan(eqn, ins)
    if name == "while":
        return loop(eqn, ins)
    call = walk.RULES.get(name, walk.call)(eqn, ins)
    if call is not None:
        return enter(call.jaxpr, [ins[position] for position in call.operands])
    if not is_floating(eqn):
        return walk.evaluate(eqn, ins)
    if name not in RULES:
        return [exact_or_plain(np.asarray(out)) for out in walk.evaluate(eqn, ins)]
    return RULES[name](eqn, *(x if is_exact(x) else np.asarray(x) for x in ins))


def enter(closed: AnyJaxpr, args: Sequence[Array]) -> Sequence[Array]:
    """The results of a jaxpr that an equation carries."""
    jaxpr, consts = compat.open_jaxpr(closed)
    return run(jaxpr, consts, args)


def scan(eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
    """The results of a scan, iteration by iteration."""
    params = eqn.params
    consts, carried = compat.scan_parts(eqn)
    carry, rows = list(ins[consts : consts + carried]), ins[consts + carried :]
    outputs: list[Sequence[Array]] = []
    steps = range(params["length"])
    for number in reversed(steps) if params["reverse"] else steps:
        outs = enter(params["jaxpr"], [*ins[:consts], *carry, *(row_of(row, number) for row in rows)])
        carry = outs[:carried]
        outputs.append(outs[carried:])
    outputs = outputs[::-1] if params["reverse"] else outputs
    columns = zip(*outputs, strict=True) if outputs else [[] for _ in eqn.outvars[carried:]]
    return [*carry, *(stacked(column, compat.aval(var)) for column, var in zip(columns, eqn.outvars[carried:], strict=True))]


def row_of(x: Array, number: int) -> Array:
    """One row of an array; as an array even where it is one number."""
    return x[number, ...] if isinstance(x, np.ndarray) else x[number]


def stacked(column: Sequence[Array], aval: ShapedArray) -> np.ndarray:
    """The rows that a scan gives, stacked; an empty array where there are none."""
    if not column:
        return np.empty(aval.shape, object if nonfinite.is_inexact(aval) else aval.dtype)
    return np.stack([np.asarray(row) for row in column])


def loop(eqn: JaxprEqn, ins: Sequence[Array]) -> Sequence[Array]:
    """The results of a while loop. Raises `UsageError` where it does not end."""
    params = eqn.params
    cond_consts, body_consts = params["cond_nconsts"], params["body_nconsts"]
    test, body, state = ins[:cond_consts], ins[cond_consts : cond_consts + body_consts], list(ins[cond_consts + body_consts :])
    for _ in range(MOST_ITERATIONS):
        (goes_on,) = enter(params["cond_jaxpr"], [*test, *state])
        if not bool(goes_on):
            return state
        state = enter(params["body_jaxpr"], [*body, *state])
    raise UsageError(f"a while loop has not ended after {MOST_ITERATIONS} iterations of exact arithmetic: compare a function that ends")


def is_floating(eqn: JaxprEqn) -> bool:
    """Whether an operand or a result of an equation is floating."""
    return any(nonfinite.is_inexact(atom.aval) for atom in [*eqn.invars, *eqn.outvars])


def unsupported(jaxpr: Jaxpr) -> Iterator[str]:
    """The names of primitives without an exact rule, in the order of the equations, repeated as often as they occur."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inner = compat.sub_jaxprs(eqn)
        if any(_is_complex(atom.aval) for atom in [*eqn.invars, *eqn.outvars]):
            yield f"{name} (complex)"
        elif primitives.of(eqn).prints:
            continue
        elif inner and (primitives.of(eqn).calls or primitives.of(eqn).loops or name == "cond"):
            for _, closed in inner:
                yield from unsupported(compat.open_jaxpr(closed)[0])
        elif name not in RULES and is_floating(eqn) and not _only_bits(eqn):
            yield name


def _only_bits(eqn: JaxprEqn) -> bool:
    """Whether an equation reads the bits of integers as floats, which is exact without a rule."""
    return eqn.primitive.name == "bitcast_convert_type" and not nonfinite.is_inexact(eqn.invars[0].aval)


def _is_complex(aval: object) -> bool:
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, np.complexfloating))
