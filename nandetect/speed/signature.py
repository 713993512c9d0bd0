"""What a compiled program is made for: the shape, dtype, weak type and place of each array, and the value of each static argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from nandetect import jitted
from nandetect.annotations import Pytree
from nandetect.program.trace import argument_name

ChangeKind = Literal["shape", "dtype", "weak type", "sharding", "static value", "structure"]
_LONGEST = 40
_TOLD = ("shape", "dtype", "weak", "sharding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One leaf of the arguments as the compiler sees it. `value` is what a static argument is; `same` tells two static values apart."""

    type: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    weak: bool = False
    sharding: str = ""
    value: str | None = None
    same: int | None = None

    def __str__(self) -> str:
        if self.value is not None:
            return self.value
        name = f"{self.dtype}[{','.join(map(str, self.shape))}]"
        return name + (" of weak type" if self.weak else "") + (f" {self.sharding}" if self.sharding else "")


Signature = Mapping[str, Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What differs in one argument, named by its pytree path; `before` and `after` are None where there was no such argument."""

    path: str
    kind: ChangeKind
    before: Part | None
    after: Part | None

    def __str__(self) -> str:
        return f"{self.before or 'nothing'} -> {self.after or 'nothing'}"


def signature(step: Callable[..., object], args: tuple[Pytree, ...], kwargs: dict[str, Pytree]) -> Signature:
    """The parts of one call, by the pytree paths of its arguments; under the empty path, how they are put together."""
    positions, names = jitted.static_arguments(step)
    positions = {position % len(args) for position in positions if -len(args) <= position < len(args)}
    # Callables that are not `jax.jit`'s (another library's own jit) make everything static that is no array.
    all_static = not hasattr(step, "_jit_info")
    function = getattr(step, "__wrapped__", step)
    parts: dict[str, Part] = {}

    def is_whole(node: object) -> bool:
        return any(node is args[position] for position in positions) or any(node is kwargs.get(name) for name in names)

    for path, leaf in jax.tree_util.tree_flatten_with_path((args, kwargs), is_leaf=is_whole if positions or names else None)[0]:
        key = getattr(path[1], "idx", getattr(path[1], "key", None)) if len(path) > 1 else None
        static = key in positions if isinstance(key, int) else key in names
        parts[argument_name(function, path)] = _static(leaf) if static else _part(leaf, all_static)
    parts[""] = Part(value="the structure of the arguments", same=_hash(jax.tree.structure((args, kwargs))))
    return parts


def _part(leaf: object, all_static: bool) -> Part:
    if isinstance(leaf, jax.Array):
        return Part(shape=leaf.shape, dtype=str(leaf.dtype), weak=leaf.aval.weak_type, sharding=_spread(leaf))
    if isinstance(leaf, np.ndarray | np.generic):
        return Part(shape=leaf.shape, dtype=str(jax.dtypes.canonicalize_dtype(leaf.dtype)))
    if isinstance(leaf, bool | int | float | complex) and not all_static:
        weak = not isinstance(leaf, bool)
        return Part(dtype=str(jax.dtypes.canonicalize_dtype(type(leaf))), weak=weak)
    return _static(leaf)


def _static(value: object) -> Part:
    if callable(value):
        # Functions are told apart by their id: only the same object is alike, and what is kept must not keep it alive.
        return Part(value=f"the function `{getattr(value, '__qualname__', type(value).__name__)}`", same=id(value))
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        text = repr(value)
        return Part(value=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…", same=_hash(value))
    return Part(value=f"{_article(type(value).__name__)} {type(value).__name__}", same=_hash(value))


def _article(noun: str) -> str:
    return "an" if noun[:1].lower() in "aeiou" else "a"


def _hash(value: object) -> int:
    try:
        if isinstance(value, tuple | list):
            return hash(tuple(map(_hash, value)))
        return _hash_of_structure(value) if isinstance(value, jax.tree_util.PyTreeDef) else hash(value)
    except TypeError:
        return id(value)


def _hash_of_structure(tree: Pytree) -> int:
    """Python's own hash leaves out what the nodes hold beside their children, which a library's jit puts its static values into."""
    return hash((_hash(tree.node_data() or ()), *map(_hash_of_structure, tree.children())))


def _spread(leaf: jax.Array) -> str:
    """How an array lies on more than one device; nothing for one that lies on one."""
    return "" if len(leaf.sharding.device_set) == 1 else f"over {getattr(leaf.sharding, 'spec', leaf.sharding)}"


def changes(before: Signature, after: Signature) -> tuple[Change, ...]:
    """What differs, argument by argument."""
    paths = [*after, *(path for path in before if path not in after)]
    pairs = [(path, before.get(path), after.get(path)) for path in paths]
    changed = [Change(path=path, kind=_kind(path, old, new), before=old, after=new) for path, old, new in pairs if old != new]
    # The change of the whole structure, under the empty path, is told only where no part changed.
    return tuple([change for change in changed if change.path] or changed)


def distance(changed: Sequence[Change]) -> int:
    """How far two signatures are apart: the properties that differ in all arguments, so that a change of shape and dtype counts twice."""
    return sum(max(1, sum(getattr(change.before, name, None) != getattr(change.after, name, None) for name in _TOLD)) for change in changed)


def _kind(path: str, old: Part | None, new: Part | None) -> ChangeKind:
    if old is None or new is None:
        return "structure"
    if old.value is not None or new.value is not None:
        return "static value" if path else "structure"
    if old.shape != new.shape:
        return "shape"
    if old.dtype != new.dtype:
        return "dtype"
    return "weak type" if old.weak != new.weak else "sharding"
