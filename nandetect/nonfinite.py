"""What is measured of a value: which elements are non-finite, and what a reader needs to know of an operand."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nandetect.annotations import Array
from nandetect.records import Operand, Value

# Truth values in the shape of a value: which of its elements are meant.
Mask = np.ndarray
Leaf = TypeVar("Leaf")
Bools = TypeVar("Bools", np.ndarray, jax.Array)


def is_inexact(aval: object) -> bool:
    """Whether a value (or its abstract shape) is floating or complex, low-precision types included."""
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, np.inexact))


def widened(x: Array) -> jax.Array:
    """A floating or complex array in 32 bits at least: eight-bit and four-bit floats lack half the operations, and JAX does not
    promote them to a wider type."""
    narrow = x.dtype.itemsize < 4
    return jax.lax.convert_element_type(x, jnp.float32) if narrow else jnp.asarray(x)


def host(value: object) -> np.ndarray:
    """A value as a numpy array; on the CPU without a copy. Four-bit and other types that numpy cannot test are widened."""
    array = np.asarray(value)
    if array.dtype.kind in "fcbiu":
        return array
    try:
        np.isfinite(array[..., None][:0])
        return array
    except TypeError:
        return array.astype(np.float32)


def copied(leaf: Leaf) -> Leaf | jax.Array | np.ndarray:
    """An array in memory of its own, where it was and as it was (dtype, weak type, sharding); anything else itself. Compiles nothing."""
    if isinstance(leaf, jax.Array):
        return jax.device_put(leaf, leaf.sharding if leaf.committed else None, may_alias=False)
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf


def bad(value: ArrayLike) -> Mask:
    """Where a value is NaN or infinite."""
    return ~np.isfinite(host(value))


def nans(value: ArrayLike) -> Mask:
    """Where a value is NaN; a complex one is NaN where either part is."""
    return np.isnan(host(value))


def born(bad: Bools, is_nan: Bools, has_nan: Bools, has_inf: Bools) -> Bools:
    """Which of the `bad` elements their equation made: those from finite operands, and each NaN that came of an inf without a NaN.

    `has_nan` and `has_inf` mark the elements that depend on a NaN and on an inf of an operand. All four may also be one truth value for a
    whole array, and may be traced.
    """
    return bad & ~has_nan & (~has_inf | is_nan)


def in_double(value: Array) -> np.ndarray:
    """A value on the host in double precision, so that two of whatever types can be compared."""
    array = host(value)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def is_clean(value: ArrayLike) -> bool:
    """Whether every element is finite."""
    return bool(np.isfinite(host(value)).all())


def kind_of(element: np.generic) -> Value:
    """The name of a non-finite element."""
    if np.isnan(element):
        return "nan"
    part = element.real if np.isinf(np.real(element)) or not np.iscomplexobj(element) else element.imag
    return "inf" if part > 0 else "-inf"


def mask_of(shape: tuple[int, ...], index: tuple[int, ...]) -> Mask:
    """A mask that marks one element."""
    mask = np.zeros(shape, bool)
    mask[index] = True
    return mask


def first(mask: Mask) -> tuple[int, ...]:
    """The first marked element in row-major order."""
    return tuple(int(position) for position in np.unravel_index(int(np.argmax(mask)), mask.shape))


def scalar(element: np.ndarray | np.generic) -> bool | int | float | complex:
    """A numpy element as the Python number that says the same."""
    return complex(element) if np.iscomplexobj(element) else real(element)


def real(element: np.ndarray | np.generic) -> bool | int | float:
    """A numpy element that is not complex as the Python number that says the same."""
    kind = np.asarray(element).dtype.kind
    return bool(element) if kind == "b" else int(element) if kind in "iu" else float(element)


def describe(value: ArrayLike, index: tuple[int, ...] | None, name: str = "") -> Operand:
    """An operand as the report shows it: its range over the finite elements, its counts, its value at `index`."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended):
        return Operand(name=name, shape=np.shape(value), dtype=str(dtype))
    array = host(value)
    dtype = str(dtype if dtype is not None else array.dtype)
    index = () if array.ndim == 0 else index
    element = scalar(array[index]) if index is not None and len(index) == array.ndim else None
    lowest, highest = _range(array)
    inexact = array.dtype.kind not in "biu"
    return Operand(
        name=name,
        shape=tuple(array.shape),
        dtype=dtype,
        min=lowest,
        max=highest,
        value=element,
        index=index if element is not None else None,
        nan=int(np.isnan(array).sum()) if inexact else 0,
        inf=int(np.isinf(array).sum()) if inexact else 0,
        zero=int((array == 0).sum()),
        subnormal=_subnormals(array) if inexact else 0,
    )


def _range(array: np.ndarray) -> tuple[float | None, float | None]:
    """The least and the largest finite element, of complex ones the magnitudes; None where there is none, and for booleans."""
    finite = array[np.isfinite(array)]
    if array.dtype.kind == "b" or not finite.size:
        return None, None
    sizes = np.abs(finite) if array.dtype.kind == "c" else finite
    return real(sizes.min()), real(sizes.max())


def _subnormals(array: np.ndarray) -> int:
    """How many elements are smaller than the smallest normal number of their type, and not 0; none are counted in complex arrays."""
    if array.dtype.kind == "c":
        return 0
    tiny = jax.numpy.finfo(array.dtype).smallest_normal
    return int(((np.abs(array) < tiny) & (array != 0)).sum())
