"""What a function was told when it was jitted."""

from __future__ import annotations


def may_donate(function: object) -> bool:
    """Whether a step may take its arguments' buffers: what `jax.jit` was told, or not known for another library's jit."""
    info = getattr(function, "_jit_info", None)
    return info is None or bool(info.donate_argnums or info.donate_argnames)


def static_arguments(function: object) -> tuple[frozenset[int], frozenset[str]]:
    """Which positions and which keywords of a jitted function are static."""
    info = getattr(function, "_jit_info", None)
    return frozenset(getattr(info, "static_argnums", ())), frozenset(getattr(info, "static_argnames", ()))
