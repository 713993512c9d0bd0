"""The user's step as a jaxpr beside its arguments: traced once, run once as it is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat, jitted, nonfinite
from nandetect.annotations import Array, Pytree, Tape
from nandetect.errors import UsageError
from nandetect.program import contexts, refs

if TYPE_CHECKING:
    from jax.typing import DTypeLike


# Calls a step with its arguments.
Calling: TypeAlias = Callable[[Callable[..., Pytree], Sequence[Pytree], dict[str, Pytree]], Pytree]
# The keys from the root of a pytree to a leaf, each of its container's kind.
KeyPath: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True)
class Program:
    """A traced step. `call` runs the user's own function on these arguments and returns its flat results; `retrace` traces it once more,
    and is None for what JAX differentiated as it ran: traced later, that shows nothing of how it was made.

    Where it is given a function, that one calls the step. `tape` holds what the callbacks of the one true run returned. With `is_compiled`,
    what an operation gives by itself may not be what it gives in the program; with `is_wrapped` a library jitted it, around a function of
    the user's.
    """

    name: str
    jaxpr: compat.Jaxpr
    consts: list[Array]
    args: list[Array]
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    call: Callable[[], list[Array]]
    retrace: Callable[..., compat.AnyJaxpr] | None
    tape: Tape | None = None
    is_compiled: bool = True
    is_wrapped: bool = False


def is_jitted(function: object) -> bool:
    """Whether a callable is what `jax.jit` returns, so that tracing it reuses the trace that its call made."""
    return type(function).__name__ == "PjitFunction" and hasattr(type(function), "trace")


def is_compiled(step: object) -> bool:
    """Whether calling a step again does nothing but compute: what `jax.jit` made, or equinox's and flax's own jit around it."""
    step = getattr(step, "__func__", step.func if isinstance(step, functools.partial) else step)
    return is_jitted(step) or (type(step).__module__.split(".")[0] in ("equinox", "flax") and "jit" in type(step).__name__.lower())


def trace(function: Callable[..., Pytree], args: Sequence[Pytree], kwargs: Mapping[str, Pytree]) -> Program:
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


def _jitted(function: Pytree, args: Sequence[Pytree], kwargs: Mapping[str, Pytree]) -> Program:
    """What `jax.jit` returned: the trace that JAX keeps of it."""
    # Of the type: a jit around a method that is jitted, and guarded, has the attributes of that too.
    with contexts.around(function):
        traced = type(function).trace(function, *args, **kwargs)
    jaxpr, consts = compat.open_jaxpr(refs.without(traced.jaxpr))
    positions, names = jitted.static_arguments(function)
    given = _Given(args, kwargs, frozenset(position % len(args) if position < 0 and args else position for position in positions), names)
    leaves = jax.tree.leaves(given.dynamic)
    donated = [bool(getattr(leaf, "donated", False)) for leaf in jax.tree.leaves(traced.args_info, is_leaf=lambda x: hasattr(x, "donated"))]
    if len(donated) != len(leaves):
        raise UsageError(
            f"the arguments of {_name(function)} do not match the ones that JAX traced: {len(leaves)} and {len(donated)} arrays"
        )

    def call() -> list[Array]:
        # Donated arguments are given as copies, so that the user's own arrays stay alive.
        fresh = [nonfinite.copied(leaf) if gone else leaf for leaf, gone in zip(leaves, donated, strict=True)]
        again, named = given.with_leaves(fresh) if any(donated) else (args, kwargs)
        return jax.tree.leaves(function(*again, **named))

    def retrace(calling: Calling = lambda step, a, k: step(*a, **k)) -> compat.AnyJaxpr:
        # A lambda around the function is traced anew: of the function itself JAX would return the trace that it keeps.
        again = jax.jit(
            lambda *a, **k: calling(function.__wrapped__, a, k), static_argnums=tuple(given.positions), static_argnames=tuple(names)
        )
        with contexts.around(function):
            return refs.without(again.trace(*args, **kwargs).jaxpr)

    return Program(
        name=_name(function),
        jaxpr=jaxpr,
        consts=consts,
        args=[_array(leaf, compat.aval(var).dtype) for leaf, var in zip(leaves, jaxpr.invars, strict=True)],
        arguments=_argument_names(jaxpr, given.dynamic),
        results=_paths(traced.out_info),
        call=call,
        retrace=retrace,
        is_wrapped=jitted.is_librarys(function),
    )


@dataclass(frozen=True)
class _Given:
    """The arguments of a jitted function, with the positions and the names of those that are static."""

    args: Sequence[Pytree]
    kwargs: Mapping[str, Pytree]
    positions: frozenset[int]
    names: frozenset[str]

    @property
    def dynamic(self) -> tuple[tuple[Pytree, ...], dict[str, Pytree]]:
        """The arguments that are traced."""
        args = tuple(arg for position, arg in enumerate(self.args) if position not in self.positions)
        return args, {name: value for name, value in self.kwargs.items() if name not in self.names}

    def with_leaves(self, leaves: Sequence[Pytree]) -> tuple[list[Pytree], dict[str, Pytree]]:
        """All arguments, with these arrays in the traced ones."""
        dynamic, named = jax.tree.unflatten(jax.tree.structure(self.dynamic), leaves)
        rest = iter(dynamic)
        args = [arg if position in self.positions else next(rest) for position, arg in enumerate(self.args)]
        return args, {**self.kwargs, **named}


def _plain(function: Callable[..., Pytree], args: Sequence[Pytree], kwargs: Mapping[str, Pytree]) -> Program:
    """A plain callable, or one that some library's own jit returned: only its arrays and numbers are traced."""
    flat = _Flat(function, args, kwargs)
    arrays = [slot for slot, leaf in enumerate(flat.leaves) if _is_array(leaf)]
    numbers = [slot for slot, leaf in enumerate(flat.leaves) if _is_array(leaf) or isinstance(leaf, float | complex)]
    try:
        dynamic, traced = numbers, flat.trace(numbers)
    except (jax.errors.ConcretizationTypeError, TypeError):
        # Numbers that the step looks at (an `if` on one) cannot be traced: all numbers are then part of the program.
        if numbers == arrays:
            raise
        dynamic, traced = arrays, flat.trace(arrays)
    jaxpr, consts = compat.open_jaxpr(traced)
    return Program(
        name=_name(function),
        jaxpr=jaxpr,
        consts=consts,
        args=[_array(flat.leaves[slot], compat.aval(var).dtype) for slot, var in zip(dynamic, jaxpr.invars, strict=True)],
        arguments=tuple(argument_name(function, flat.paths[slot]) for slot in dynamic),
        results=tuple(flat.results),
        call=flat.call,
        retrace=lambda: flat.trace(dynamic),
    )


class _Flat:
    """A function from the flat leaves of its arguments to a flat list of arrays; `results` are the names of those, once it has run.

    What the function changes in its arguments (flax's nnx does) is a result too, named as the argument is.
    """

    def __init__(self, function: Callable[..., Pytree], args: Sequence[Pytree], kwargs: Mapping[str, Pytree]):
        given = (tuple(args), dict(kwargs))
        self.leaves, self.tree = jax.tree.flatten(given)
        self.paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(given)[0]]
        self.results: list[str] = []
        self._function = function

    def __call__(self, leaves: Sequence[Pytree]) -> list[Array]:
        args, kwargs = jax.tree.unflatten(self.tree, leaves)
        returned = self._function(*args, **kwargs)
        outs = [(keystr(path) or "result", leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(returned)[0] if _is_array(leaf)]
        after = jax.tree.leaves((args, kwargs))[: len(leaves)]
        outs += [
            (argument_name(self._function, path), new)
            for path, new, old in zip(self.paths, after, leaves, strict=False)
            if new is not old and _is_array(new)
        ]
        self.results = [name for name, _ in outs]
        return [leaf for _, leaf in outs]

    def trace(self, dynamic: Sequence[int]) -> compat.AnyJaxpr:
        """The program of the leaves in these slots; the others are part of it."""

        def flat(*values: Array) -> list[Array]:
            leaves = list(self.leaves)
            for slot, value in zip(dynamic, values, strict=True):
                leaves[slot] = value
            return self(leaves)

        return refs.without(jax.make_jaxpr(flat)(*[self.leaves[slot] for slot in dynamic]))

    def call(self) -> list[Array]:
        """The results for the arguments themselves, which stay the user's, whatever the function donates."""
        return self([nonfinite.copied(leaf) for leaf in self.leaves])


def keystr(path: KeyPath) -> str:
    """A pytree path as Python writes it; the leaves of a class without keys of its own are numbered."""
    return jax.tree_util.keystr(tuple(map(_as_written, path)))


def _as_written(key: Hashable) -> Hashable:
    return jax.tree_util.SequenceKey(getattr(key, "key", 0)) if isinstance(key, jax.tree_util.FlattenedIndexKey) else key


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _array(leaf: Pytree, dtype: DTypeLike) -> Array:
    if isinstance(leaf, jax.Array) or jnp.issubdtype(dtype, jax.dtypes.extended):
        return leaf
    return np.asarray(leaf, dtype)


def _name(function: object) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _paths(tree: Pytree) -> tuple[str, ...]:
    return tuple(keystr(path) or "result" for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0])


def _argument_names(jaxpr: compat.Jaxpr, tree: Pytree) -> tuple[str, ...]:
    """`params['dense']['w']`, as JAX's debug information has it; the plain path where it has none."""
    names = getattr(getattr(jaxpr, "debug_info", None), "arg_names", None)
    if names and len(names) == len(jaxpr.invars):
        return tuple(names)
    return _paths(tree)


def argument_name(function: Callable[..., object], path: KeyPath) -> str:
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
