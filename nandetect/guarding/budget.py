"""How many bytes a guard may keep where nobody says: an eighth of the memory that the arrays are in."""

from __future__ import annotations

import os

import jax

_SHARE = 8
_UNKNOWN = 2**31


def bound() -> int:
    """Bytes: an eighth of the device's memory, or of the machine's where the device is the host; 256 MiB where neither says."""
    try:
        stats = jax.local_devices()[0].memory_stats()
    except (RuntimeError, NotImplementedError):  # backends that do not count memory raise, each in its own way
        stats = None
    return (stats or {}).get("bytes_limit", _of_machine()) // _SHARE


def _of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN
