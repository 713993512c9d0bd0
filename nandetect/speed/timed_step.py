"""A step and one call's arguments, ready to be called again and again: what it donates is given to it as copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nandetect import compat, nonfinite, ownership
from nandetect.program.trace import Program, argument_name, is_jitted
from nandetect.program.trace import trace as traced
from nandetect.records import Frame
from nandetect.speed.compilations import source


class Subject:
    """`step(*args, **kwargs)`, by whatever name it has. Raises `UsageError` where it cannot be traced."""

    def __init__(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.step, self.args, self.kwargs = step, args, kwargs
        self.program: Program = traced(step, args, kwargs)
        file, line, self.name = source(step)
        self.where = Frame(file=file, line=line) if file and not ownership.is_machinery(file) else None
        self.may_donate = not is_jitted(step) or compat.may_donate(step)
        self._given = args, kwargs

    def prepare(self) -> None:
        """Fresh arguments for the next call."""
        if self.may_donate:
            self._given = jax.tree.map(nonfinite.copied, (self.args, self.kwargs))

    def call(self) -> Any:
        """The call itself."""
        args, kwargs = self._given
        return self.step(*args, **kwargs)

    def call_and_wait(self) -> Any:
        """The call with all that it does on the host."""
        out = jax.block_until_ready(self.call())
        jax.effects_barrier()
        return out

    @property
    def leaves(self) -> list[tuple[str, Any]]:
        """The arrays and numbers of the arguments, by their pytree paths."""
        function = getattr(self.step, "__wrapped__", self.step)
        paths = jax.tree_util.tree_flatten_with_path((self.args, self.kwargs))[0]
        return [(argument_name(function, path), leaf) for path, leaf in paths]

    def with_leaves(self, change: Callable[[Any], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with every array changed; what is static stays."""
        return jax.tree.map(
            lambda leaf: change(leaf) if isinstance(leaf, jax.Array | np.ndarray | np.generic) else leaf, (self.args, self.kwargs)
        )

    @property
    def groups(self) -> list[tuple[int, str, list[int]]]:
        """For each positional argument of arrays alone: its position, its name, and where its leaves are among the program's inputs."""
        positions, _ = compat.static_arguments(self.step)
        function, at, found = getattr(self.step, "__wrapped__", self.step), 0, []
        for number, arg in enumerate(self.args):
            if number in positions or number - len(self.args) in positions:
                continue
            leaves = jax.tree.leaves(arg)
            path = (jax.tree_util.SequenceKey(0), jax.tree_util.SequenceKey(number))
            if leaves and all(isinstance(leaf, jax.Array) for leaf in leaves):
                found.append((number, argument_name(function, path), list(range(at, at + len(leaves)))))
            at += len(leaves)
        return found
