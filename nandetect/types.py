"""Types that more than one room speaks of. Neither JAX nor numpy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, Union

if TYPE_CHECKING:
    import jax
    import numpy as np

# Any nesting of the containers that JAX knows, down to its leaves: Python has no type for it.
Pytree: TypeAlias = Any
# An array on a device or in the host's memory.
Array: TypeAlias = Union["jax.Array", "np.ndarray"]
