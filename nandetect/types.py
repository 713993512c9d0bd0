"""Types that more than one room speaks of. No JAX here when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    import jax

# Any nesting of the containers that JAX knows, down to its leaves: Python has no type for it.
Pytree: TypeAlias = Any
# An array on a device or in the host's memory.
Array: TypeAlias = Union["jax.Array", np.ndarray]
