"""A hook in Python's import: something is done as soon as the program has imported JAX, or one more module of it.

nandetect does not import JAX by itself before that: JAX reads its settings when it is imported, and the program may set them first.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import ModuleSpec
from typing import Self


@contextmanager
def after_jax(opened: Callable[[], None]) -> Iterator[None]:
    """While open, `opened` is called once JAX has been imported; at once where it has been."""
    if "jax" in sys.modules:
        opened()
        yield
        return

    def imported(module: types.ModuleType) -> None:
        finder.leave()
        opened()

    with _ImportHook(lambda name: name == "jax", imported) as finder:
        yield


def after_each_of_jax(imported: Callable[[types.ModuleType], None]) -> AbstractContextManager[object]:
    """While open, `imported` is called with each module of JAX's that a program imports for the first time."""
    return _ImportHook(lambda name: name.startswith("jax."), imported)


@contextmanager
def after_module(name: str, imported: Callable[[types.ModuleType], None]) -> Iterator[None]:
    """While open, `imported` is called with one module as soon as it has been imported; at once where it has been."""
    if name in sys.modules:
        imported(sys.modules[name])
        yield
        return
    with _ImportHook(lambda other: other == name, imported):
        yield


class _ImportHook:
    """Lets the other finders find a module, and calls `imported` as soon as it has been executed."""

    def __init__(self, wanted: Callable[[str], bool], imported: Callable[[types.ModuleType], None]):
        self._wanted, self._imported = wanted, imported
        self._asks_others = False

    def __enter__(self) -> Self:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Find nothing any more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a wanted module as the others give it, with a loader that calls back; nothing for any other name."""
        if self._asks_others or not self._wanted(name):
            return None
        self._asks_others = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asks_others = False
        if spec is not None and spec.loader is not None:
            # On the loader itself and not around it: what else asks the loader for something gets what it always got.
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._execute(execute, module)
        return spec

    def _execute(self, execute: Callable[[types.ModuleType], None], module: types.ModuleType) -> None:
        execute(module)
        if self in sys.meta_path:
            self._imported(module)
