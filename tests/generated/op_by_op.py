"""A second opinion: the step run operation by operation by thirty lines that share nothing with nandetect.

Each value carries the places that its non-finite elements may come from: those of the operands that were not finite, or the operation
itself where none was.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from generated.numbers_by_numpy import by_numpy
from jax.extend.core import ClosedJaxpr, Literal


class Place(NamedTuple):
    """An operation in the user's file."""

    primitive: str
    lines: tuple[int, ...]


class Value(NamedTuple):
    """A number or array, and where what is not finite in it may have been born."""

    data: Any
    born: frozenset[Place] = frozenset()


def is_bad(data: Any) -> bool:
    """Whether an array holds anything but finite numbers."""
    if not hasattr(data, "dtype") or not jax.numpy.issubdtype(data.dtype, jax.numpy.inexact):
        return isinstance(data, float) and not np.isfinite(data)
    return not bool(np.isfinite(np.asarray(data)).all())


def births(function, file: str, *args) -> frozenset[Place]:
    """The places that what is not finite in the function's result descends from."""
    closed = jax.make_jaxpr(function)(*args)
    values = _run(closed, [Value(leaf) for leaf in jax.tree.leaves(args)], file, ())
    return frozenset().union(*(value.born for value in values))


def _run(closed: ClosedJaxpr, args: list[Value], file: str, outer: tuple[int, ...]) -> list[Value]:
    jaxpr = closed.jaxpr
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(Value, closed.consts), *args], strict=True))
    for eqn in jaxpr.eqns:
        operands = [Value(atom.val) if isinstance(atom, Literal) else env[atom] for atom in eqn.invars]
        lines = _lines(eqn, file) or outer
        results = _enter(eqn, operands, file, lines)
        if results is None:
            results = _apply(eqn, operands, lines)
        env.update(zip(eqn.outvars, results, strict=True))
    return [Value(atom.val) if isinstance(atom, Literal) else env[atom] for atom in jaxpr.outvars]


def _lines(eqn, file: str) -> tuple[int, ...]:
    trace = eqn.source_info.traceback
    return tuple(frame.line_num for frame in trace.frames if frame.file_name == file)[:1] if trace else ()


def _apply(eqn, operands: list[Value], lines: tuple[int, ...]) -> list[Value]:
    out = _bind(eqn, [value.data for value in operands])
    out = out if eqn.primitive.multiple_results else [out]
    inside = frozenset().union(*(value.born for value in _chosen(eqn, operands, out)))
    here = inside or frozenset({Place(eqn.primitive.name, lines)})
    # What is only copied of a literal or an argument was not born.
    moved = not inside and any(is_bad(value.data) for value in operands) and not any(_has_nan(data) for data in out)
    return [Value(data, here if is_bad(data) and not moved else frozenset()) for data in out]


def _bind(eqn, operands: list[Any]) -> Any:
    by_hand = by_numpy(eqn, operands)
    if by_hand is not None:
        return [by_hand] if eqn.primitive.multiple_results else by_hand
    bound = eqn.primitive.get_bind_params(eqn.params)
    # Before JAX 0.9 the functions that an equation calls stand beside its parameters.
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    return eqn.primitive.bind(*functions, *operands, **params)


def _has_nan(data: Any) -> bool:
    return is_bad(data) and bool(np.isnan(np.asarray(data)).any())


def _chosen(eqn, operands: list[Value], out: list[Any]) -> list[Value]:
    """Of a selection only the operands that a non-finite element of the result was taken from."""
    if eqn.primitive.name != "select_n":
        return operands
    which, bad = np.asarray(operands[0].data), ~np.isfinite(np.asarray(out[0])) if is_bad(out[0]) else np.zeros(1, bool)
    return [case for number, case in enumerate(operands[1:]) if bool((bad & (which == number)).any())]


def _enter(eqn, operands: list[Value], file: str, lines: tuple[int, ...]) -> list[Value] | None:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _scan(params, operands, file, lines)
    if name == "while":
        return _while(params, operands, file, lines)
    if name == "cond":
        index = int(np.clip(int(operands[0].data), 0, len(params["branches"]) - 1))
        return _run(params["branches"][index], operands[1:], file, lines)
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params and name != "shard_map":
            inside = params[key]
            closed = inside if isinstance(inside, ClosedJaxpr) or hasattr(inside, "consts") else ClosedJaxpr(inside, [])
            return _run(closed, operands, file, lines)
    return None


def _scan(params, operands: list[Value], file: str, lines: tuple[int, ...]) -> list[Value]:
    if "num_consts" in params:
        consts, carried = params["num_consts"], params["num_carry"]
    else:
        # JAX 0.11 counts them by trees.
        consts, carried = (len(list(part.vals)) for part in params["ft_in"].unpack()[:2])
    fixed, carry, rows = operands[:consts], operands[consts : consts + carried], operands[consts + carried :]
    order = range(params["length"])
    made: dict[int, list[Value]] = {}
    for i in reversed(order) if params["reverse"] else order:
        out = _run(params["jaxpr"], [*fixed, *carry, *(Value(row.data[i], row.born) for row in rows)], file, lines)
        carry, made[i] = out[:carried], out[carried:]
    stacked = [
        Value(np.stack([np.asarray(value.data) for value in column]), frozenset().union(*(value.born for value in column)))
        for column in zip(*(made[i] for i in order), strict=True)
    ]
    return [*carry, *stacked]


def _while(params, operands: list[Value], file: str, lines: tuple[int, ...]) -> list[Value]:
    of_test, of_body = params["cond_nconsts"], params["body_nconsts"]
    test, body, carry = operands[:of_test], operands[of_test : of_test + of_body], operands[of_test + of_body :]
    while bool(_run(params["cond_jaxpr"], [*test, *carry], file, lines)[0].data):
        carry = _run(params["body_jaxpr"], [*body, *carry], file, lines)
    return carry
