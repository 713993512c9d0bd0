"""Numbers, times and sizes as text: each way that some message, picture or table has of saying one, written once. No JAX.

The ways differ by what a reader wants of the number, and the messages are kept as they are: look here before writing another one.
"""

from __future__ import annotations

import math
import struct

# The code of `struct` for each dtype narrower than Python's own float.
_PACKED = {"float16": "e", "float32": "f", "complex64": "f"}


def number(value: object, dtype: str = "") -> str:
    """A value in four digits; in all the digits of its dtype where four would make it look rounder than it is (0.99999994)."""
    item = getattr(value, "item", None)
    value = item() if item is not None else value
    if isinstance(value, complex):
        sign = "-" if math.copysign(1.0, value.imag) < 0 else "+"
        return f"{number(value.real, dtype)} {sign} {number(abs(value.imag), dtype)}j"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value.is_integer() and abs(value) < 1e7:
        return f"{value:.1f}"
    told = f"{value:.4g}"
    looks_round = float(told) != value and float(told) == float(f"{value:.1g}")
    return _exact(value, dtype) if looks_round else told


def _exact(value: float, dtype: str) -> str:
    """The fewest digits that are this very value in its dtype."""
    code = _PACKED.get(dtype, "d")
    for digits in range(4, 17):
        text = f"{value:.{digits}g}"
        if struct.pack(code, float(text)) == struct.pack(code, value):
            return text
    return repr(value)


def short(value: float, digits: int = 4) -> str:
    """So many digits, and never `-0`."""
    return f"{value + 0.0:.{digits}g}"


def precise(value: float) -> str:
    """Six digits, with the sign of a zero: for a value beside the true one."""
    return f"{value:.6g}"


def rough(value: float) -> str:
    """Two digits; `inf` for whatever is not finite."""
    return f"{value:.2g}" if math.isfinite(value) else "inf"


def decimal(value: float) -> str:
    """Four decimals below 1, as a standard deviation is read: `0.0442`; else three digits."""
    return f"{value:.4f}" if 0.001 <= value < 1 else f"{value:.3g}"


def magnitude(value: float) -> str:
    """Three digits, and a fourth from 1,000 on, so that a size is not rounded to `1e+03`."""
    return f"{value:.4g}" if value >= 1000 else f"{value:.3g}"


def whole(value: float) -> str:
    """`12`, `1,250`; one decimal for what is no whole number below 100."""
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:,.1f}"


def share(value: float) -> str:
    """`97.3%`; `0%` and `100%` for none and all."""
    return f"{value:.0%}" if value in (0.0, 1.0) else f"{value:.1%}"


def counted(count: int, noun: str) -> str:
    """`1 step`, `1,250 steps`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def times(factor: float) -> str:
    """How many times another size something is: `3.1 times`, `480 times`, `2e+06 times`."""
    return f"{factor:.2g} times" if factor < 10 or factor >= 1e5 else f"{factor:,.0f} times"


def times_off(factor: float) -> str:
    """How far a scale is from the one it should have, to a decimal: `1.4 times`, `31.6 times`, `480 times`."""
    return f"{factor:.1f} times" if factor < 100 else f"{factor:,.0f} times"


def times_grown(factor: float) -> str:
    """What a gradient grew by: `12 times`, `3.2e+07 times`, `beyond measure`."""
    return f"{factor:,.0f} times" if factor < 1e5 else f"{factor:.1e} times" if math.isfinite(factor) else "beyond measure"


def times_as_fast(factor: float) -> str:
    """What a measured speed-up is: `5.2 times`, `31 times`."""
    return f"{_two_digits(factor)} times"


def _two_digits(value: float) -> str:
    """Two digits, or as many as stand before the point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def call_time(seconds: float) -> str:
    """What a call takes, in two digits: `5.1 ms`, `71 us`, `1.3 s`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_two_digits(seconds / size)} {unit}"
    return f"{_two_digits(seconds * 1e6)} us"


def race_time(seconds: float) -> str:
    """When a goal was reached, in three digits: `0.92 ms`, `31.5 ms`, `1.2 s`, `never`."""
    if math.isinf(seconds):
        return "never"
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"


def run_time(seconds: float) -> str:
    """How long a run took or has left, as a person says it: `8 s`, `2 min 5 s`, `3 h 20 min`."""
    rounded = max(round(seconds), 0)
    if rounded < 60:
        return f"{rounded} s"
    minutes, rest = divmod(rounded, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 24 * 60 else f"{minutes // 1440} d {minutes % 1440 // 60} h"


def steps_per_second(rate: float) -> str:
    """`1,250 steps/s`."""
    return f"{rate:,.0f} steps/s"


def pace(seconds: float) -> str:
    """`1,250 steps/s` by the seconds of one step; two digits of a slow one: `3.3 steps/s`."""
    return steps_per_second(1 / seconds) if seconds <= 0.1 else f"{1 / seconds:.2g} steps/s"


def megabytes(count: float) -> str:
    """Megabytes of 10**6 bytes, in three digits: `1.05 MB`, `1,250 MB`."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


def memory(count: int) -> str:
    """Megabytes of 2**20 bytes: `1.2 MB`, `1,250 MB`."""
    size = count / 2**20
    return f"{size:.1f} MB" if size < 10 else f"{size:,.0f} MB"


def file_size(count: int) -> str:
    """`12 kB`, `1.2 MB`, of 10**3 and 10**6 bytes."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
