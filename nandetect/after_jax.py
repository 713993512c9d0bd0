"""To do something as soon as a program has imported JAX, and not to import it before: it reads its settings when it is imported."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any


@contextmanager
def after_jax(opened: Callable[[], None]) -> Iterator[None]:
    """While open, `opened` is called once JAX has been imported; at once where it has been."""
    if "jax" in sys.modules:
        opened()
        yield
        return
    finder = _AfterJax(opened)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.leave()


class _AfterJax:
    """Lets the other finders find JAX, and calls `opened` as soon as it has been executed."""

    def __init__(self, opened: Callable[[], None]):
        self._opened = opened
        self._asks_others = False

    def leave(self) -> None:
        """Find nothing any more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of `jax` as the others give it, with a loader that calls back; nothing for any other name."""
        if name != "jax" or self._asks_others:
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
            self.leave()
            self._opened()
