"""Variants of a step to compare it with: without its callbacks, in float32 throughout, with its state donated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import stages

from nandetect import compat, primitives
from nandetect.annotations import Array
from nandetect.program.trace import Program

Flat: TypeAlias = Callable[..., Sequence[Array]]


def plain(program: Program) -> Flat:
    """The step as a function of its flat arguments, to be compiled."""
    return compat.as_function(program.jaxpr, program.consts)


def quiet(program: Program) -> Flat:
    """The step with zeros for what its callbacks return."""
    return compat.as_function(compat.rewritten(program.jaxpr, _without_callback), program.consts)


def _without_callback(eqn: compat.JaxprEqn) -> compat.JaxprEqn | None:
    primitive = primitives.of(eqn)
    if primitive.prints or (primitive.calls_back and not eqn.outvars):
        return None
    if not primitive.calls_back:
        return eqn
    shapes = [(compat.aval(var).shape, compat.aval(var).dtype) for var in eqn.outvars]

    # Zeros behind a barrier: the compiler must not compute with them ahead of time.
    @jax.jit
    def stand_in(*operands: Array) -> list[Array]:
        return jax.lax.optimization_barrier([jnp.zeros(shape, dtype) for shape, dtype in shapes])

    operands = [jax.ShapeDtypeStruct(compat.aval(atom).shape, compat.aval(atom).dtype) for atom in eqn.invars]
    (call,) = compat.open_jaxpr(jax.make_jaxpr(stand_in)(*operands))[0].eqns
    return eqn.replace(primitive=call.primitive, params=call.params, effects=call.effects)


def narrowed(leaf: Array) -> Array:
    """An argument as it would be without x64, on the host: 64-bit numbers in 32 bits."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf
    array = np.asarray(leaf)
    narrow = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32, "complex128": np.complex64}.get(str(array.dtype))
    return leaf if narrow is None else array.astype(narrow)


def donating(flat: Flat, slots: Sequence[int]) -> stages.Wrapped:
    """The step, to be compiled with these of its flat arguments donated."""
    return jax.jit(flat, donate_argnums=tuple(slots))


def compiled(jitted: stages.Wrapped, args: Sequence[Array]) -> stages.Compiled:
    """The step compiled for arguments like these, to be called with such."""
    return jitted.lower(*args).compile()


def memory(program: stages.Compiled) -> int | None:
    """The bytes that a compiled step needs: what goes in, what comes out and what lies between. None where the backend does not say."""
    try:
        stats = program.memory_analysis()
    # Backends that keep no account raise, each in its own way.
    except (NotImplementedError, RuntimeError):
        return None
    if stats is None:
        return None
    return stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes - stats.alias_size_in_bytes
