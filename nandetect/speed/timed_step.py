"""A step and one call's arguments, ready to be called again and again: what it donates is given to it as copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from nandetect import jitted, nonfinite, ownership
from nandetect.annotations import Array, Pytree
from nandetect.program.trace import Program, argument_name, is_jitted
from nandetect.program.trace import trace as traced
from nandetect.records import Frame
from nandetect.speed.compilations import source


class TimedStep:
    """`step(*args, **kwargs)`, by whatever name it has. Raises `UsageError` where it cannot be traced."""

    def __init__(self, step: Callable[..., Pytree], args: tuple[Pytree, ...], kwargs: Mapping[str, Pytree]):
        self.step, self.args, self.kwargs = step, args, dict(kwargs)
        self.program: Program = traced(step, args, kwargs)
        file, line, self.name = source(step)
        self.where = Frame(file=file, line=line) if file and not ownership.is_machinery(file) else None
        self.may_donate = not is_jitted(step) or jitted.may_donate(step)
        self._given = self.args, self.kwargs

    def prepare(self) -> None:
        """Fresh arguments for the next call."""
        if self.may_donate:
            self._given = jax.tree.map(nonfinite.copied, (self.args, self.kwargs))

    def call(self) -> Pytree:
        """The call itself."""
        args, kwargs = self._given
        return self.step(*args, **kwargs)

    def call_and_wait(self) -> Pytree:
        """The call with all that it does on the host."""
        out = jax.block_until_ready(self.call())
        jax.effects_barrier()
        return out

    @property
    def leaves(self) -> list[tuple[str, Pytree]]:
        """The arrays and numbers of the arguments, by their pytree paths."""
        function = getattr(self.step, "__wrapped__", self.step)
        paths = jax.tree_util.tree_flatten_with_path((self.args, self.kwargs))[0]
        return [(argument_name(function, path), leaf) for path, leaf in paths]

    def with_leaves(self, change: Callable[[Array | np.generic], Array | np.generic]) -> tuple[tuple[Pytree, ...], dict[str, Pytree]]:
        """The arguments with every array changed; what is static stays."""
        return jax.tree.map(
            lambda leaf: change(leaf) if isinstance(leaf, jax.Array | np.ndarray | np.generic) else leaf, (self.args, self.kwargs)
        )

    @property
    def groups(self) -> list[tuple[int, str, list[int]]]:
        """For each positional argument of arrays alone: its position, its name, and where its leaves are among the program's inputs."""
        positions, _ = jitted.static_arguments(self.step)
        function, inputs = getattr(self.step, "__wrapped__", self.step), 0
        groups: list[tuple[int, str, list[int]]] = []
        for position, arg in enumerate(self.args):
            if position in positions or position - len(self.args) in positions:
                continue
            leaves = jax.tree.leaves(arg)
            path = (jax.tree_util.SequenceKey(0), jax.tree_util.SequenceKey(position))
            if leaves and all(isinstance(leaf, jax.Array) for leaf in leaves):
                groups.append((position, argument_name(function, path), list(range(inputs, inputs + len(leaves)))))
            inputs += len(leaves)
        return groups
