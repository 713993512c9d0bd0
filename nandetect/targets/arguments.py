"""The arguments that a function is traced on: shapes written by hand, an archive of arrays, or the examples that its module keeps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from nandetect.annotations import Pytree
from nandetect.errors import UsageError

_SHAPE = re.compile(r"([a-z][a-z0-9_]*)\[([0-9, ]*)\]")
_DTYPES = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "c64": "complex64",
    "c128": "complex128",
    "bool": "bool",
    "pred": "bool",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_WIDE = ("float64", "int64", "uint64", "complex128")


def from_shapes(function: Callable[..., object], shapes: Sequence[str]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """One argument for each `f32[8,64]`, in order."""
    arguments = tuple(shape(text) for text in shapes)
    _check(function, arguments, f"--shape was given {len(shapes)} time{'' if len(shapes) == 1 else 's'}")
    return arguments


def shape(text: str) -> jax.ShapeDtypeStruct:
    """`f32[8,64]` as the shape and dtype that it names; `key[]` is a random key."""
    written = _SHAPE.fullmatch(text.strip())
    if not written:
        raise UsageError(f"--shape {text!r} is not a shape: write it as f32[8,64], or f32[] for a scalar")
    kind, sizes = written.groups()
    dimensions = tuple(int(size) for size in sizes.split(",") if size.strip())
    if kind == "key":
        return jax.ShapeDtypeStruct(dimensions, jax.random.key(0).dtype)
    try:
        dtype = jnp.dtype(_DTYPES.get(kind, kind))
    except TypeError as error:
        raise UsageError(f"--shape {text!r}: there is no dtype {kind}; known are {', '.join(_DTYPES)}, key and JAX's own names") from error
    if dtype.name in _WIDE and jnp.result_type(float) == jnp.float32:
        raise UsageError(f"--shape {text!r} needs 64-bit values: set JAX_ENABLE_X64=1")
    return jax.ShapeDtypeStruct(dimensions, dtype)


def from_archive(function: Callable[..., object], archive: Path) -> tuple[Pytree, ...]:
    """The arrays of an .npz: by parameter name (`params/w1` is params["w1"]), or in order where saved without names (arr_0, ...)."""
    try:
        with np.load(archive) as file:
            arrays = dict(file.items())
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {archive}") from error
    # An unreadable archive, one with a pickled object among them, makes numpy raise errors of several classes.
    except Exception as error:
        raise UsageError(f"{archive} is not an .npz of plain arrays: {error}") from error
    named = _nested(arrays)
    if all(re.fullmatch(r"arr_\d+", name) for name in named):
        arguments = tuple(named[f"arr_{number}"] for number in range(len(named)))
        _check(function, arguments, f"{archive} holds {len(named)}")
        return arguments
    names = _parameters(function)
    unknown = sorted(set(named) - set(names))
    if unknown:
        raise UsageError(f"{archive} holds `{unknown[0]}`, which {_signature(function)} does not take")
    arguments = tuple(named[name] for name in names if name in named)
    _check(function, arguments, f"{archive} holds {', '.join(named)}")
    return arguments


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Pytree]:
    """`{"params/w1": x}` as `{"params": {"w1": x}}`."""
    tree: dict[str, Pytree] = {}
    for path, array in arrays.items():
        *folders, leaf = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = array
    return tree


def from_module(function: Callable[..., Pytree], module: ModuleType) -> tuple[Callable[..., Pytree], tuple[Pytree, ...]]:
    """The function with the arguments that its module keeps: `example_args`, or `make()`, which may return (function, arguments)."""
    kept = _kept(module)
    is_pair = kept is not None and len(kept) == 2 and callable(kept[0]) and isinstance(kept[1], (tuple, list))
    if function is getattr(module, "make", None):
        if kept is None or not is_pair:
            raise UsageError(f"make() in {module.__name__} should return (function, arguments): change that, or name a function")
        return kept[0], tuple(kept[1])
    if kept is None:
        if _fits(function, ()):
            return function, ()
        raise UsageError(
            f"{_signature(function)} needs arguments: give --shape f32[8,64] once for each, or --args FILE.npz, "
            f"or keep a tuple `example_args` in {module.__name__}"
        )
    arguments = tuple(kept[1]) if is_pair else kept
    _check(function, arguments, f"{module.__name__} keeps {len(arguments)} argument{'' if len(arguments) == 1 else 's'}")
    return function, arguments


def _kept(module: ModuleType) -> tuple[Pytree, ...] | None:
    """What `example_args` or `make` of a module holds or returns; None where it has neither."""
    kept = getattr(module, "example_args", None)
    kept = getattr(module, "make", None) if kept is None else kept
    try:
        made = kept() if callable(kept) else kept
    # `make` is the user's own code, and may raise anything at all.
    except Exception as error:
        raise UsageError(f"the example arguments of {module.__name__} could not be made: {type(error).__name__}: {error}") from error
    if made is not None and not isinstance(made, (tuple, list)):
        raise UsageError(f"the example arguments of {module.__name__} should be a tuple, not a {type(made).__name__}")
    return None if made is None else tuple(made)


def _check(function: Callable[..., object], arguments: Sequence[object], given: str) -> None:
    if not _fits(function, arguments):
        raise UsageError(f"{given}, and {_signature(function)} does not take that")


def _fits(function: Callable[..., object], arguments: Sequence[object]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    # A builtin without a signature is found out by tracing it.
    except ValueError:
        return True
    return True


def _parameters(function: Callable[..., object]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _signature(function: Callable[..., object]) -> str:
    """`loss(params, x)`."""
    return f"{getattr(function, '__name__', type(function).__name__)}({', '.join(_parameters(function))})"
