"""What a function was told when it was jitted, and by whom."""

from __future__ import annotations

import weakref

# Those that a library jitted for its own use: the user calls that, and not them.
_OF_LIBRARIES: weakref.WeakSet[object] = weakref.WeakSet()


def may_donate(function: object) -> bool:
    """Whether a step may take its arguments' buffers: what `jax.jit` was told, or not known for another library's jit."""
    info = getattr(function, "_jit_info", None)
    return info is None or bool(info.donate_argnums or info.donate_argnames)


def static_arguments(function: object) -> tuple[frozenset[int], frozenset[str]]:
    """Which positions and which keywords of a jitted function are static."""
    info = getattr(function, "_jit_info", None)
    return frozenset(getattr(info, "static_argnums", ())), frozenset(getattr(info, "static_argnames", ()))


def by_a_library(function: object) -> None:
    """Say of a jitted function that a library jitted it."""
    _OF_LIBRARIES.add(function)


def is_librarys(function: object) -> bool:
    """Whether a library jitted a function, as far as was seen."""
    return function in _OF_LIBRARIES
