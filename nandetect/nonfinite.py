"""What is measured of a value: which elements are non-finite, and what a reader needs to know of an operand."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.records import Operand, Value

Mask = np.ndarray
Bools = TypeVar("Bools", np.ndarray, jax.Array)


def is_inexact(aval: Any) -> bool:
    """Whether a value (or its abstract shape) is floating or complex, low-precision types included."""
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, np.inexact))


def widened(x: Any) -> Any:
    """A floating or complex array in 32 bits at least: eight-bit and four-bit floats lack half the operations and promote to nothing."""
    narrow = x.dtype.itemsize < 4
    return jax.lax.convert_element_type(x, jnp.float32) if narrow else jnp.asarray(x)


def host(value: Any) -> np.ndarray:
    """A value as a numpy array; on the CPU without a copy. Four-bit and other types that numpy cannot test are widened."""
    array = np.asarray(value)
    if array.dtype.kind in "fcbiu":
        return array
    try:
        np.isfinite(array[..., None][:0])
        return array
    except TypeError:
        return array.astype(np.float32)


def copied(leaf: Any) -> Any:
    """An array in memory of its own, where it was and as it was (dtype, weak type, sharding); anything else itself. Compiles nothing."""
    if isinstance(leaf, jax.Array):
        return jax.device_put(leaf, leaf.sharding if leaf.committed else None, may_alias=False)
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf


def bad(value: Any) -> Mask:
    """Where a value is NaN or infinite."""
    return ~np.isfinite(host(value))


def nans(value: Any) -> Mask:
    """Where a value is NaN; a complex one is NaN where either part is."""
    return np.isnan(host(value))


def born(bad: Bools, is_nan: Bools, has_nan: Bools, has_inf: Bools) -> Bools:
    """Which non-finite elements were made by their equation and not handed on: from finite operands, or a NaN from inf without NaN.

    `has_nan` and `has_inf` mark those that depend on a NaN and on an inf. Also for whole arrays, and for values that are traced.
    """
    return bad & ~has_nan & (~has_inf | is_nan)


def is_clean(value: Any) -> bool:
    """Whether every element is finite."""
    return bool(np.isfinite(host(value)).all())


def kind_of(element: Any) -> Value:
    """The name of a non-finite element."""
    if np.isnan(element):
        return "nan"
    real = element.real if np.isinf(np.real(element)) or not np.iscomplexobj(element) else element.imag
    return "inf" if real > 0 else "-inf"


def first(mask: Mask) -> tuple[int, ...]:
    """The first marked element in row-major order."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def scalar(element: Any) -> Any:
    """A numpy element as the Python number that says the same."""
    if np.iscomplexobj(element):
        return complex(element)
    kind = np.asarray(element).dtype.kind
    return bool(element) if kind == "b" else int(element) if kind in "iu" else float(element)


def describe(value: Any, index: tuple[int, ...] | None, name: str = "") -> Operand:
    """An operand as the report shows it: its range over the finite elements, its counts, its value at `index`."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended):
        return Operand(name=name, shape=tuple(value.shape), dtype=str(dtype))
    array = host(value)
    dtype = str(dtype if dtype is not None else array.dtype)
    at = scalar(array[index]) if index is not None and len(index) == array.ndim else None
    if array.ndim == 0:
        at, index = scalar(array[()]), ()
    if array.dtype.kind in "bc" or array.size == 0:
        lowest = highest = None
        if array.dtype.kind == "c" and array.size:
            magnitude = np.abs(array[np.isfinite(array)])
            lowest, highest = (float(magnitude.min()), float(magnitude.max())) if magnitude.size else (None, None)
    else:
        finite = array[np.isfinite(array)]
        lowest, highest = (scalar(finite.min()), scalar(finite.max())) if finite.size else (None, None)
    inexact = array.dtype.kind not in "biu"
    return Operand(
        name=name,
        shape=tuple(array.shape),
        dtype=dtype,
        min=lowest,
        max=highest,
        value=at,
        index=index if at is not None else None,
        nan=int(np.isnan(array).sum()) if inexact else 0,
        inf=int(np.isinf(array).sum()) if inexact else 0,
        zero=int((array == 0).sum()),
        subnormal=_subnormals(array) if inexact else 0,
    )


def _subnormals(array: np.ndarray) -> int:
    if array.dtype.kind == "c":
        return 0
    tiny = jax.numpy.finfo(array.dtype).smallest_normal
    return int(((np.abs(array) < tiny) & (array != 0)).sum())
