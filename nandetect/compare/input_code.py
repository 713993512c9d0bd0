"""The Python code that makes an input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LONGEST = 12


def code(names: Sequence[str], args: Sequence[np.ndarray], dtype: np.dtype) -> tuple[str, ...]:
    """A line for each argument, as `logits = jnp.array([[89.0, 0.0]])`; the dtype is named where it is not float32."""
    return tuple(f"{name} = {array(arg, dtype)}" for name, arg in zip(names, args, strict=True))


def array(arg: np.ndarray, dtype: np.dtype) -> str:
    """The code of one array; `jnp.full` for a large one whose elements are all equal."""
    arg = np.asarray(arg)
    is_integer = arg.dtype.kind in "iub"
    dtype_text = "" if is_integer or dtype == np.float32 else f", jnp.{dtype.name}"
    if arg.size > _LONGEST:
        distinct = np.unique(arg.astype(float))
        if len(distinct) == 1:
            return f"jnp.full({arg.shape}, {number(distinct[0], dtype, is_integer)}{dtype_text})"
    return f"jnp.array({_nested(arg, dtype, is_integer)}{dtype_text})"


def _nested(arg: np.ndarray, dtype: np.dtype, is_integer: bool) -> str:
    if arg.ndim == 0:
        return number(arg[()], dtype, is_integer)
    return f"[{', '.join(_nested(row, dtype, is_integer) for row in arg)}]"


def number(x: object, dtype: np.dtype, is_integer: bool = False) -> str:
    """The shortest decimal that rounds to this number in the dtype."""
    if is_integer:
        return str(int(x))  # pyright: ignore[reportArgumentType]
    value = np.float64(x)  # pyright: ignore[reportArgumentType]
    cast = value.astype(dtype)
    for digits in range(1, 18):
        text = f"{float(value):.{digits}g}"
        if np.float64(text).astype(dtype) == cast:
            return repr(float(text))
    return repr(float(value))
