"""Types that more than one room speaks of. Neither JAX nor numpy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

if TYPE_CHECKING:
    import jax
    import numpy as np

# Any nesting of the containers that JAX knows, down to its leaves: Python has no type for it.
Pytree: TypeAlias = Any
# A value of a JSON document.
Json: TypeAlias = Union[bool, int, float, str, "list[Json]", "dict[str, Json]", None]
# An array on a device or in the host's memory.
Array: TypeAlias = Union["jax.Array", "np.ndarray"]


class TracebackFrame(Protocol):
    """One frame of a traceback as JAX keeps it."""

    file_name: str
    function_name: str


class Traceback(Protocol):
    """A traceback as JAX keeps it, innermost frame first."""

    @property
    def frames(self) -> Sequence[TracebackFrame]: ...


class Busy(Protocol):
    """Says whether nandetect itself is at work on this thread: not 0."""

    @property
    def now(self) -> int: ...


class Tape(Protocol):
    """What the callbacks of the one true run returned, to be played to a replay."""

    def position(self) -> list[int]:
        """Where a replay stands, callback by callback."""
        ...

    def seek(self, position: list[int]) -> None:
        """Bring a replay back to where it stood."""
        ...

    def rewind(self) -> None:
        """Begin a replay."""
        ...
