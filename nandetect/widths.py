"""How wide numbers are while something runs."""

from __future__ import annotations

import contextlib

import jax


def double() -> contextlib.AbstractContextManager[object]:
    """A context in which float64 is float64."""
    return _x64(True)


def single() -> contextlib.AbstractContextManager[object]:
    """A context in which nothing that is made has 64 bits."""
    return _x64(False)


def _x64(on: bool) -> contextlib.AbstractContextManager[object]:
    if hasattr(jax, "enable_x64"):  # JAX 0.8 moved it
        return jax.enable_x64(on)
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]

    return enable_x64(on)
