"""The user's step as a jaxpr beside its arguments: traced once, run once as it is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat, nonfinite
from nandetect.errors import UsageError


@dataclass(frozen=True)
class Program:
    """A traced step. `call` runs the user's own function on these arguments and returns its flat results.

    With `is_compiled`, what an operation gives by itself may not be what it gives in the program.
    """

    name: str
    jaxpr: Any
    consts: list[Any]
    args: list[Any]
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    call: Callable[[], list[Any]]
    retrace: Callable[[], Any]
    tape: Any = None
    is_compiled: bool = True


def is_jitted(function: Any) -> bool:
    """Whether a callable is what `jax.jit` returns, so that tracing it reuses the trace that its call made."""
    return type(function).__name__ == "PjitFunction" and hasattr(function, "trace")


def is_compiled(step: Any) -> bool:
    """Whether calling a step again does nothing but compute: what `jax.jit` made, or equinox's and flax's own jit around it."""
    step = getattr(step, "__func__", step.func if isinstance(step, functools.partial) else step)
    return is_jitted(step) or (type(step).__module__.split(".")[0] in ("equinox", "flax") and "jit" in type(step).__name__.lower())


def trace(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Program:
    """Trace a step. Raises `UsageError` where `function` is not callable or JAX cannot trace it with these arguments."""
    if not callable(function):
        raise UsageError(f"locate wants a function and its arguments, not {type(function).__name__}")
    owner, method = getattr(function, "__self__", None), getattr(function, "__func__", None)
    if owner is not None and method is not None and is_jitted(method):
        function, args = method, (owner, *args)
    try:
        return _jitted(function, args, kwargs) if is_jitted(function) else _plain(function, args, kwargs)
    except TypeError as error:
        said = str(error).splitlines()
        raise UsageError(f"{_name(function)} cannot be traced with these arguments: {said[0] if said else 'TypeError'}") from error


def _jitted(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Program:
    traced = function.trace(*args, **kwargs)
    positions, names = compat.static_arguments(function)
    positions = {at % len(args) if at < 0 and args else at for at in positions}
    dynamic = tuple(arg for at, arg in enumerate(args) if at not in positions)
    keywords = {key: value for key, value in kwargs.items() if key not in names}
    leaves = jax.tree.leaves((dynamic, keywords))
    info = jax.tree.leaves(traced.args_info, is_leaf=lambda x: hasattr(x, "donated"))
    jaxpr, consts = compat.open_jaxpr(traced.jaxpr)
    if len(info) != len(leaves):
        raise UsageError(f"the arguments of {_name(function)} do not match the ones that JAX traced: {len(leaves)} and {len(info)} arrays")
    donated = [bool(getattr(leaf, "donated", False)) for leaf in info]

    def call() -> list[Any]:
        if not any(donated):
            return jax.tree.leaves(function(*args, **kwargs))
        # The user's buffers stay theirs: what the step would take is given to it as a copy.
        fresh = [nonfinite.copied(leaf) if gone else leaf for leaf, gone in zip(leaves, donated, strict=True)]
        given, named = jax.tree.unflatten(jax.tree.structure((dynamic, keywords)), fresh)
        rest = iter(given)
        again = [arg if at in positions else next(rest) for at, arg in enumerate(args)]
        return jax.tree.leaves(function(*again, **{**kwargs, **named}))

    def retrace() -> Any:
        # Under another function: JAX keeps the trace that it made of this one.
        again = jax.jit(lambda *a, **k: function.__wrapped__(*a, **k), static_argnums=tuple(positions), static_argnames=tuple(names))
        return again.trace(*args, **kwargs).jaxpr

    values = [_array(leaf, compat.aval(var).dtype) for leaf, var in zip(leaves, jaxpr.invars, strict=True)]
    return Program(
        name=_name(function),
        jaxpr=jaxpr,
        consts=consts,
        args=values,
        arguments=_argument_names(jaxpr, (dynamic, keywords)),
        results=_paths(traced.out_info),
        call=call,
        retrace=retrace,
    )


def _plain(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Program:
    """A plain callable, or one that some library's own jit returned: only its arrays and numbers are traced.

    What it changes in its arguments (flax's nnx does) is a result too, named as the argument is.
    """
    leaves, tree = jax.tree.flatten((tuple(args), kwargs))
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path((tuple(args), kwargs))[0]]
    names: list[str] = []

    def run(values: Sequence[Any]) -> list[Any]:
        given, named = jax.tree.unflatten(tree, values)
        result = function(*given, **named)
        changed = {at: new for at, new in enumerate(jax.tree.leaves((given, named))[: len(values)]) if new is not values[at]}
        returned = [(path, leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(result)[0] if _is_array(leaf)]
        names[:] = [keystr(path) or "result" for path, _ in returned]
        names.extend(argument_name(function, paths[at]) for at, new in changed.items() if _is_array(new))
        return [leaf for _, leaf in returned] + [new for new in changed.values() if _is_array(new)]

    def attempt(dynamic: list[int]) -> Any:
        def flat(*values: Any) -> list[Any]:
            again = list(leaves)
            for at, value in zip(dynamic, values, strict=True):
                again[at] = value
            return run(again)

        return jax.make_jaxpr(flat)(*[leaves[at] for at in dynamic])

    def call() -> list[Any]:
        # The user's buffers stay theirs, whatever this callable donates.
        return run([nonfinite.copied(leaf) for leaf in leaves])

    arrays = [at for at, leaf in enumerate(leaves) if _is_array(leaf)]
    numbers = [at for at, leaf in enumerate(leaves) if _is_array(leaf) or isinstance(leaf, float | complex)]
    try:
        dynamic, closed = numbers, attempt(numbers)
    except (jax.errors.ConcretizationTypeError, TypeError):
        if numbers == arrays:
            raise
        dynamic, closed = arrays, attempt(arrays)
    jaxpr, consts = compat.open_jaxpr(closed)
    return Program(
        name=_name(function),
        jaxpr=jaxpr,
        consts=consts,
        args=[_array(leaves[at], compat.aval(var).dtype) for at, var in zip(dynamic, jaxpr.invars, strict=True)],
        arguments=tuple(argument_name(function, paths[at]) for at in dynamic),
        results=tuple(names),
        call=call,
        retrace=lambda: attempt(dynamic),
    )


def keystr(path: Sequence[Any]) -> str:
    """A pytree path as Python writes it; the leaves of a class without keys of its own are numbered."""
    flat = jax.tree_util.FlattenedIndexKey
    return jax.tree_util.keystr(tuple(jax.tree_util.SequenceKey(key.key) if isinstance(key, flat) else key for key in path))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _array(leaf: Any, dtype: Any) -> Any:
    if isinstance(leaf, jax.Array) or jnp.issubdtype(dtype, jax.dtypes.extended):
        return leaf
    return np.asarray(leaf, dtype)


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _paths(tree: Any) -> tuple[str, ...]:
    return tuple(keystr(path) or "result" for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0])


def _argument_names(jaxpr: Any, tree: Any) -> tuple[str, ...]:
    """`params['dense']['w']`, as JAX's debug information has it; the plain path where it has none."""
    names = getattr(getattr(jaxpr, "debug_info", None), "arg_names", None)
    if names and len(names) == len(jaxpr.invars):
        return tuple(names)
    return _paths(tree)


def argument_name(function: Any, path: tuple[Any, ...]) -> str:
    """The leaf at a pytree path of `(args, kwargs)` as its author would write it: `params['dense']['w']`."""
    position, rest = path[:2], path[2:]
    key = getattr(position[1], "idx", getattr(position[1], "key", None))
    if isinstance(key, int):
        try:
            names = list(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            names = []
        key = names[key] if key < len(names) and not names[key].startswith("args") else f"args[{key}]"
    return f"{key}{keystr(rest)}"
