"""Primitives by how their results depend on their operands; by name, since primitive objects move between JAX releases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# The axes along which an output depends on the whole of its operand.
ALONG: dict[str, Callable[[Any, int], tuple[int, ...]]] = {
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"),
        lambda eqn, ndim: tuple(eqn.params["axes"]),
    ),
    "fft": lambda eqn, ndim: tuple(range(ndim - len(eqn.params["fft_lengths"]), ndim)),
    **dict.fromkeys(
        (
            "cholesky",
            "eigh",
            "eig",
            "lu",
            "geqrf",
            "qr",
            "svd",
            "schur",
            "householder_product",
            "triangular_solve",
            "tridiagonal",
            "hessenberg",
        ),
        lambda eqn, ndim: (ndim - 2, ndim - 1),
    ),
}
KEEPS_AXES = frozenset({"fft"})
RUNNING = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj convert_element_type
    bitcast_convert_type copy copy_p copysign cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a
    igammac imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or polygamma population_count
    pow random_gamma_grad real reduce_precision regularized_incomplete_beta rem round rsqrt shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square sub tan tanh xor zeta
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
WINDOWS = frozenset({"reduce_window_sum", "reduce_window_max", "reduce_window_min"})
ADDITIVE = frozenset({"scatter-add", "scatter_add", "scatter-sub", "scatter_sub"})
# An operand's element lands in its own place; updates may land anywhere.
SAME_PLACE = frozenset({"scatter-mul", "scatter-min", "scatter-max", "scatter_mul", "scatter_min", "scatter_max"})
BILINEAR = frozenset({"conv_general_dilated"})
