"""A table of functions by name, filled where the functions are written."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Function = TypeVar("Function", bound=Callable[..., object])


class Registry(dict[Key, Function], Generic[Key, Function]):
    """Functions by what they are for: the names of primitives, mostly."""

    def rule(self, *keys: Key) -> Callable[[Function], Function]:
        """Enter a function in the table under these keys. Raises `ValueError` where one of them has a function already."""

        def enter(function: Function) -> Function:
            taken = self.keys() & set(keys)
            if taken:
                raise ValueError(f"there is a rule for {', '.join(sorted(map(str, taken)))} already")
            self.update(dict.fromkeys(keys, function))
            return function

        return enter
