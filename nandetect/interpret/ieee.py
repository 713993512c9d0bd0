"""Arithmetic whose result IEEE 754 fixes to the bit, run with numpy: the same answer as XLA's, and nothing to compile.

Sums over axes, matrix products and functions such as `exp` stay with XLA, whose order, rounding and saturation are the user's. So does
whatever meets a subnormal number: XLA on the CPU flushes those to zero, numpy does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nandetect import compat, primitives
from nandetect.compat import JaxprEqn
from nandetect.primitives.record import Params
from nandetect.registry import Registry

# Types on which numpy, like XLA, rounds each operation once to nearest-even; complex and 8-bit floats are left to XLA.
EXACT_TYPES = frozenset(
    {"float16", "bfloat16", "float32", "float64", "int32", "int64", "uint32", "int8", "uint8", "int16", "uint16", "uint64", "bool"}
)
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
TYPES = {"numbers": EXACT_TYPES, "floats": FLOATS, "booleans": frozenset({"bool"})}
TINY = {"float32": np.finfo(np.float32).tiny, "bfloat16": np.finfo(np.float32).tiny, "float64": np.finfo(np.float64).tiny}


def evaluate(eqn: JaxprEqn, ins: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """The result of an equation on arrays in memory; None where it is not exact in numpy."""
    types = [x.dtype.name for x in ins]
    if not EXACT_TYPES.issuperset(types) or any(_has_subnormal(x) for x in ins):
        return None
    with np.errstate(all="ignore"):
        out = _apply(eqn, ins, types)
    if out is None:
        return None
    aval = compat.aval(eqn.outvars[0])
    result = np.asarray(out)
    if result.dtype != aval.dtype or result.shape != tuple(aval.shape) or _has_subnormal(result):
        return None
    if primitives.of(eqn).chooses_zero and (result == 0).any() and any(_has_negative_zero(x) for x in ins):
        return None
    return [result]


def _apply(eqn: JaxprEqn, ins: Sequence[np.ndarray], types: Sequence[str]) -> np.ndarray | None:
    primitive = primitives.of(eqn)
    if primitive.numpy:
        if not TYPES[primitive.numpy_on].issuperset(types) or (primitive.axes and not ins[0].size):
            return None
        function = getattr(np, primitive.numpy)
        return function(*ins, axis=tuple(eqn.params["axes"])) if primitive.axes else function(*ins)
    rule = RULES.get(primitive.name)
    return rule(eqn.params, *ins) if rule else None


# Rules for primitives whose results numpy gives exactly too, but not by one function of the operands.
RULES: Registry[str, Callable[..., np.ndarray | None]] = Registry()


@RULES.rule("iota")
def _iota(params: Params) -> np.ndarray:
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = params["shape"][params["dimension"]]
    return np.broadcast_to(np.arange(max(shape), dtype=params["dtype"]).reshape(shape), params["shape"])


@RULES.rule("clamp")
def _clamped(params: Params, low: np.ndarray, x: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


@RULES.rule("square")
def _squared(params: Params, x: np.ndarray) -> np.ndarray:
    return x * x


@RULES.rule("sign")
def _sign(params: Params, x: np.ndarray) -> np.ndarray:
    """-1, 0 or 1; a zero keeps its sign, and NaN stays."""
    return np.where(x == 0, x, np.sign(x))


@RULES.rule("integer_pow")
def _integer_power(params: Params, x: np.ndarray) -> np.ndarray | None:
    """By repeated squaring, in the order in which JAX lowers it; None where a power on the way is subnormal."""
    exponent: int = params["y"]
    if x.dtype.name not in FLOATS:
        return None
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


@RULES.rule("convert_element_type")
def _converted(params: Params, x: np.ndarray) -> np.ndarray | None:
    new = params["new_dtype"]
    old, name = x.dtype.name, np.dtype(new).name
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
