"""Functions of several balls around the gamma function; they give a non-finite ball where there is no value, or it is not clear."""

from __future__ import annotations

from collections.abc import Callable

from flint import arb

from nandetect.truth.balls import INF, NAN, ONE, ZERO, nearest


def polygamma(order: arb, x: arb) -> arb:
    """The `order`-th derivative of digamma (DLMF 5.15.1): (-1)^(n+1) n! zeta(n+1, x), for x > 0; else by recurrence from a positive x."""
    if not (order.is_exact() and order.is_integer()) or order < 0:
        return NAN
    n = int(nearest(order))
    if n == 0:
        return x.digamma()
    if x == INF:
        return ZERO
    if x > 0:
        value = arb(n + 1).zeta(x) * arb.fac_ui(n)
        return value if n % 2 else -value
    # Recurrence up to a positive x: psi_n(x) = psi_n(x + m) - (-1)^n n! sum of (x + k)^-(n+1).
    if not x.is_finite() or x.contains_integer() or x < -10_000:
        return NAN
    steps = int(nearest(-x)) + 2
    tail = sum(((x + k) ** -(n + 1) for k in range(steps)), ZERO) * arb.fac_ui(n)
    return polygamma(order, x + steps) + (tail if n % 2 else -tail)


def zeta(s: arb, q: arb) -> arb:
    """The Hurwitz zeta function, for s > 1 and q > 0."""
    return s.zeta(q) if s > 1 and q > 0 else INF if s == 1 else NAN


def igamma(a: arb, x: arb) -> arb:
    """The lower incomplete gamma function over gamma(a), for a > 0 and x >= 0."""
    if not a > 0 or x < 0:
        return NAN
    if x.is_zero() or x == INF:
        return ZERO if x.is_zero() else ONE
    return x.gamma_lower(a, regularized=1)


def igammac(a: arb, x: arb) -> arb:
    """The upper incomplete gamma function over gamma(a): 1 less `igamma`."""
    if not a > 0 or x < 0:
        return NAN
    if x.is_zero() or x == INF:
        return ONE if x.is_zero() else ZERO
    return x.gamma_upper(a, regularized=1)


def incomplete_beta(a: arb, b: arb, x: arb) -> arb:
    """The incomplete beta function over beta(a, b), for a, b > 0 and 0 <= x <= 1."""
    if not (a > 0 and b > 0) or x < 0 or x > 1:
        return NAN
    if x.is_zero() or x == 1:
        return ZERO if x.is_zero() else ONE
    return x.beta_lower(a, b, regularized=1)


SEVERAL: dict[str, Callable[..., arb]] = {
    "polygamma": polygamma,
    "zeta": zeta,
    "igamma": igamma,
    "igammac": igammac,
    "regularized_incomplete_beta": incomplete_beta,
}
