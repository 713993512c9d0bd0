"""An input as the Python that makes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LONGEST = 12


def code(names: Sequence[str], args: Sequence[np.ndarray], dtype: np.dtype) -> tuple[str, ...]:
    """`logits = jnp.array([[89.0, 0.0]])`, a line for each argument; the dtype is named where it is not the usual one."""
    return tuple(f"{name} = {array(arg, dtype)}" for name, arg in zip(names, args, strict=True))


def array(arg: np.ndarray, dtype: np.dtype) -> str:
    """One array; a large one of one number by that number."""
    arg = np.asarray(arg)
    whole = arg.dtype.kind in "iub"
    kind = "" if whole or dtype == np.float32 else f", jnp.{dtype.name}"
    if arg.size > _LONGEST:
        same = np.unique(arg.astype(float))
        if len(same) == 1:
            return f"jnp.full({arg.shape}, {number(same[0], dtype, whole)}{kind})"
    return f"jnp.array({_nested(arg, dtype, whole)}{kind})"


def _nested(arg: np.ndarray, dtype: np.dtype, whole: bool) -> str:
    if arg.ndim == 0:
        return number(arg[()], dtype, whole)
    return f"[{', '.join(_nested(row, dtype, whole) for row in arg)}]"


def number(x: object, dtype: np.dtype, whole: bool = False) -> str:
    """The shortest decimal that is this number in the dtype."""
    if whole:
        return str(int(x))  # pyright: ignore[reportArgumentType]
    value = np.float64(x)  # pyright: ignore[reportArgumentType]
    cast = value.astype(dtype)
    for digits in range(1, 18):
        text = f"{float(value):.{digits}g}"
        if np.float64(text).astype(dtype) == cast:
            return repr(float(text))
    return repr(float(value))
