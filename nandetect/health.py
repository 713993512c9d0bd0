"""`probe`: a function that also returns the health of its result, as arrays that stay on the device, inside any JAX transform."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from nandetect import nonfinite
from nandetect.annotations import Array, Pytree

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
MOST = 2**32 - 1
LARGEST = float(np.finfo(np.float32).max)

_sum = functools.partial(jnp.sum, axis=0, dtype=jnp.uint32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Health:
    """The numbers in a pytree: how many there are, how many of them are NaN or infinite, and the largest finite magnitude.

    `nan`, `inf` and `size` are uint32 and stay at 2**32 - 1 where there are more. An element counts once: a complex one that is NaN in one
    part and infinite in the other is a NaN. `largest` is float32: 0 where nothing is finite, the largest float32 where it would not fit.
    All four are scalars, which `vmap` and `scan` stack. Integers, booleans, keys, and leaves that are not arrays are passed over.
    """

    nan: jax.Array
    inf: jax.Array
    size: jax.Array
    largest: jax.Array

    @classmethod
    def of(cls, tree: Pytree) -> Health:
        """The health of a pytree. A loop starts with that of None, which holds nothing."""
        arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array | np.ndarray | np.generic)]
        return _measured([lax.stop_gradient(array) for array in arrays if nonfinite.is_inexact(array)])

    @property
    def finite(self) -> jax.Array:
        """Whether every number is finite."""
        return (self.nan == 0) & (self.inf == 0)

    def merge(self, other: Health) -> Health:
        """The health of both pytrees together; `a | b` is the same."""
        nan, inf, size, largest = (jnp.stack(pair) for pair in zip(_fields(self), _fields(other), strict=True))
        return Health(_total(nan), _total(inf), _total(size), jnp.max(largest, axis=0))

    __or__ = merge

    def across(self, axis_name: Hashable | Sequence[Hashable]) -> Health:
        """The health of all shards of a `shard_map`, or of all elements of a `vmap`, along a named axis."""
        add = functools.partial(lax.psum, axis_name=axis_name)
        return Health(*(_total(count, add) for count in _fields(self)[:3]), largest=lax.pmax(self.largest, axis_name))

    def __str__(self) -> str:
        if any(isinstance(field, Tracer | jax.ShapeDtypeStruct) for field in _fields(self)):
            return repr(self)
        nan, inf, size = (int(np.asarray(count).sum(dtype=np.uint64)) for count in _fields(self)[:3])
        bad = " and ".join(f"{count} {name}" for count, name in ((nan, "nan"), (inf, "inf")) if count)
        largest = f", largest {np.asarray(self.largest).max():.2g}" if size > nan + inf else ""
        return f"{bad or 'no nan or inf'} in {size} values{largest}"


def probe(fn: Callable[Arguments, Result]) -> Callable[Arguments, tuple[Result, Health]]:
    """A pure function with the signature of `fn` that returns `(fn's result, its Health)`.

    The health is that of the floating and complex arrays in the result, which is passed on as it is. No gradient flows through the health,
    so that a NaN in it gets into none. Under `shard_map` each shard counts what it holds; `health.across("axis")` adds the counts up. XLA
    fuses less with a value that is measured, so that what a compiled program makes of it may be rounded differently in the last bit.
    """

    @functools.wraps(fn, updated=())
    def probed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> tuple[Result, Health]:
        result = fn(*args, **kwargs)
        return result, Health.of(result)

    return probed


# Compiled, so that all arrays are measured by one program also where `fn` is not compiled.
@jax.jit
def _measured(arrays: list[Array]) -> Health:
    if not arrays:
        return Health(jnp.uint32(0), jnp.uint32(0), jnp.uint32(0), jnp.float32(0))
    nan, inf, largest = (jnp.stack(column) for column in zip(*map(_measured_array, arrays), strict=True))
    return Health(_total(nan), _total(inf), jnp.uint32(min(sum(array.size for array in arrays), MOST)), jnp.max(largest))


def _measured_array(x: Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The NaNs, the infinities and the largest finite magnitude of one array."""
    x = nonfinite.widened(x)
    nan, finite = jnp.isnan(x), jnp.isfinite(x)
    largest = jnp.max(jnp.abs(x), initial=0, where=finite)
    return _count(nan), _count(~(nan | finite)), jnp.minimum(largest, LARGEST).astype(jnp.float32)


def _count(mask: jax.Array) -> jax.Array:
    if mask.size <= MOST:
        return jnp.sum(mask, dtype=jnp.uint32)
    # Counts beyond uint32 are taken in float32, which rounds where a uint32 would wrap.
    return jnp.minimum(jnp.sum(mask, dtype=jnp.float32), jnp.float32(MOST - 255)).astype(jnp.uint32)


def _total(counts: jax.Array, add: Callable[[jax.Array], jax.Array] = _sum) -> jax.Array:
    """The sum of uint32 counts, or the largest uint32. Upper and lower halves are added apart: sums of 65,536 halves cannot overflow."""
    low, high = add(counts & 0xFFFF), add(counts >> 16)
    high = high + (low >> 16)
    return jnp.where(high > 0xFFFF, jnp.uint32(MOST), (high << 16) | (low & 0xFFFF))


def _fields(health: Health) -> tuple[jax.Array, ...]:
    return health.nan, health.inf, health.size, health.largest
