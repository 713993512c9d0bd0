"""How the rules say a number."""

from __future__ import annotations


def times(factor: float) -> str:
    """`3.1 times`, `480 times`, `2e+06 times`."""
    return f"{factor:.2g} times" if factor < 10 or factor >= 1e5 else f"{factor:,.0f} times"


def listed(names: list[str], most: int = 3) -> str:
    """`a`, `a and b`, `a, b, c and 4 more`."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
