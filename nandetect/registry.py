"""A table of functions by name, filled where the functions are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


class Registry(dict[str, Function]):
    """Functions by the names that they are for."""

    def rule(self, *names: str) -> Callable[[Function], Function]:
        """Enter a function in the table under these names. Raises `ValueError` where one of them has a function already."""

        def enter(function: Function) -> Function:
            taken = self.keys() & set(names)
            if taken:
                raise ValueError(f"there is a rule for {', '.join(sorted(taken))} already")
            self.update(dict.fromkeys(names, function))
            return function

        return enter
