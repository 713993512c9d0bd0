"""Why an equation gave a non-finite value, in one short phrase, from the operand values at the bad element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Reason = Callable[[Sequence[Any]], str]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _division(values: Sequence[Any]) -> str:
    top, bottom = values
    if bottom == 0:
        return "zero divided by zero" if top == 0 else "division by zero"
    if _number(top) and _number(bottom) and math.isinf(top) and math.isinf(bottom):
        return "inf divided by inf"
    return "overflow in a division"


def _product(values: Sequence[Any]) -> str:
    if any(value == 0 for value in values) and any(_number(value) and math.isinf(value) for value in values):
        return "zero times inf"
    return "overflow in a product"


def _difference(values: Sequence[Any]) -> str:
    return "inf minus inf" if any(_number(value) and math.isinf(value) for value in values) else "overflow in a difference"


def _sum(values: Sequence[Any]) -> str:
    return "inf minus inf" if any(_number(value) and math.isinf(value) for value in values) else "overflow in a sum"


def _logarithm(values: Sequence[Any]) -> str:
    return "log of zero" if values[0] == 0 else "log of a negative number"


def _logarithm_of_one_more(values: Sequence[Any]) -> str:
    return "log1p of -1" if values[0] == -1 else "log1p of a number below -1"


def _power(values: Sequence[Any]) -> str:
    base, exponent = values
    if base == 0:
        return "zero to a negative power"
    if _number(base) and base < 0 and _number(exponent) and exponent != int(exponent):
        return "fractional power of a negative number"
    return "overflow in a power"


def _outside(name: str, edge: float) -> Reason:
    def reason(values: Sequence[Any]) -> str:
        return f"{name} at {values[0]:g}" if abs(values[0]) == edge else f"{name} outside [-1, 1]"

    return reason


REASONS: dict[str, Reason] = {
    "div": _division,
    "mul": _product,
    "sub": _difference,
    "add": _sum,
    "add_any": _sum,
    "log": _logarithm,
    "log1p": _logarithm_of_one_more,
    "pow": _power,
    "integer_pow": lambda values: "negative power of zero" if values[0] == 0 else "overflow in a power",
    "sqrt": lambda values: "square root of a negative number",
    "rsqrt": lambda values: "reciprocal square root of zero" if values[0] == 0 else "reciprocal square root of a negative number",
    "acos": _outside("acos", 1),
    "asin": _outside("asin", 1),
    "atanh": _outside("atanh", 1),
    "acosh": lambda values: "acosh below 1",
    "erf_inv": _outside("erf_inv", 1),
    "lgamma": lambda values: "lgamma at a pole",
    "digamma": lambda values: "digamma at a pole",
    "rem": lambda values: "remainder of a division by zero",
    "sin": lambda values: "sine of inf",
    "cos": lambda values: "cosine of inf",
}
WHOLE = {
    "dot_general": "overflow in a matrix product",
    "conv_general_dilated": "overflow in a convolution",
    "reduce_sum": "overflow in a sum",
    "cumsum": "overflow in a running sum",
    "reduce_prod": "overflow in a product",
    "cumprod": "overflow in a running product",
    "cholesky": "matrix is not positive definite",
    "triangular_solve": "singular matrix",
    "lu": "singular matrix",
    "eigh": "eigenvalues did not converge",
    "svd": "singular values did not converge",
    **dict.fromkeys(("select_n", "broadcast_in_dim", "scatter", "pad", "concatenate"), "written there as a literal"),
    "gather": "index out of bounds, filled with nan",
}


def reason(name: str, values: Sequence[Any], value: str, given_inf: bool = False) -> str:
    """The phrase for a primitive that made `value` ("nan", "inf", "-inf") from these operand values at the element (None: not known).

    `given_inf` says that an operand held inf already and no nan, so that what was born is a nan from it.
    """
    if name in WHOLE:
        return "inf minus inf, or zero times inf, in a sum" if given_inf and value == "nan" else WHOLE[name]
    if name == "convert_element_type" or name == "reduce_precision":
        if any(isinstance(item, float) and not math.isfinite(item) for item in values):
            return "written there as a literal"
        return "too large for the narrower type"
    if values and all(item is not None for item in values):
        if name in REASONS:
            return REASONS[name](values)
        if value != "nan" and all(map(_number, values)) and all(math.isfinite(item) for item in values):
            return f"overflow in {name}"
        if len(values) == 1 and values[0] == 0:
            return f"{name} of zero"
    return f"overflow in {name}" if value != "nan" else f"{name} is not defined there"
