"""Arithmetic whose result IEEE 754 fixes to the bit, run with numpy: the same answer as XLA's, and nothing to compile.

Sums over axes, matrix products and functions such as `exp` stay with XLA, whose order, rounding and saturation are the user's. So does
whatever meets a subnormal number: XLA on the CPU flushes those to zero, numpy does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Function = Callable[..., Any]

PLAIN: dict[str, Function] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "abs": np.abs,
    "sign": lambda x: np.where(x == 0, x, np.sign(x)),
    "floor": np.floor,
    "ceil": np.ceil,
    "max": np.maximum,
    "min": np.minimum,
    "square": lambda x: x * x,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "is_finite": np.isfinite,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}
FLOATING: dict[str, Function] = {"div": np.divide, "sqrt": np.sqrt}
BOOLEAN: dict[str, Function] = {"and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "xor": np.logical_xor}
REDUCTIONS: dict[str, Function] = {"reduce_max": np.max, "reduce_min": np.min, "reduce_and": np.all, "reduce_or": np.any}
# Which zero comes out where 0.0 and -0.0 meet is XLA's own rule.
ZEROS = frozenset({"max", "min", "clamp", "reduce_max", "reduce_min"})
# Types on which numpy, like XLA, rounds each operation once to nearest-even; complex and 8-bit floats are left to XLA.
EXACT_TYPES = frozenset(
    {"float16", "bfloat16", "float32", "float64", "int32", "int64", "uint32", "int8", "uint8", "int16", "uint16", "uint64", "bool"}
)
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
TINY = {"float32": np.finfo(np.float32).tiny, "bfloat16": np.finfo(np.float32).tiny, "float64": np.finfo(np.float64).tiny}


def evaluate(eqn: Any, ins: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """The result of an equation on arrays in memory; None where it is not exact in numpy."""
    types = [x.dtype.name for x in ins]
    if not EXACT_TYPES.issuperset(types) or any(_has_subnormal(x) for x in ins):
        return None
    with np.errstate(all="ignore"):
        out = _apply(eqn, ins, types)
    if out is None:
        return None
    aval = eqn.outvars[0].aval
    result = np.asarray(out)
    if result.dtype != aval.dtype or result.shape != tuple(aval.shape) or _has_subnormal(result):
        return None
    if eqn.primitive.name in ZEROS and (result == 0).any() and any(_has_negative_zero(x) for x in ins):
        return None
    return [result]


def _apply(eqn: Any, ins: Sequence[np.ndarray], types: Sequence[str]) -> Any:
    name = eqn.primitive.name
    if name in PLAIN:
        return PLAIN[name](*ins)
    if name in FLOATING and FLOATS.issuperset(types):
        return FLOATING[name](*ins)
    if name in BOOLEAN and set(types) == {"bool"}:
        return BOOLEAN[name](*ins)
    if name in REDUCTIONS and ins[0].size:
        return REDUCTIONS[name](ins[0], axis=tuple(eqn.params["axes"]))
    if name == "integer_pow" and FLOATS.issuperset(types):
        return _integer_power(ins[0], eqn.params["y"])
    if name == "convert_element_type":
        return _converted(ins[0], types[0], eqn.params["new_dtype"])
    if name == "iota":
        params = eqn.params
        shape = [1] * len(params["shape"])
        shape[params["dimension"]] = params["shape"][params["dimension"]]
        return np.broadcast_to(np.arange(max(shape), dtype=params["dtype"]).reshape(shape), params["shape"])
    return None


def _integer_power(x: np.ndarray, exponent: int) -> np.ndarray | None:
    """By repeated squaring, in the order in which JAX lowers it; None where a power on the way is subnormal."""
    if exponent == 0:
        return np.ones_like(x)
    left, power, result = abs(exponent), x, None
    while left:
        if left & 1:
            result = power if result is None else result * power
        left >>= 1
        if left:
            power = power * power
        if _has_subnormal(power) or (result is not None and _has_subnormal(result)):
            return None
    assert result is not None
    return np.ones_like(x) / result if exponent < 0 else result


def _converted(x: np.ndarray, old: str, new: Any) -> np.ndarray | None:
    name = np.dtype(new).name
    if name == "bool":
        return x != 0
    if name in FLOATS or (name in EXACT_TYPES and old not in FLOATS):
        return x.astype(new)
    return None


def _has_negative_zero(x: np.ndarray) -> bool:
    return x.dtype.name in FLOATS and bool((np.signbit(x) & (x == 0)).any())


def _has_subnormal(x: np.ndarray) -> bool:
    tiny = TINY.get(x.dtype.name)
    if tiny is None:
        return False
    with np.errstate(invalid="ignore"):
        size = np.abs(x)
        return bool(((size < tiny) & (size > 0)).any())
