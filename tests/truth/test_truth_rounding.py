"""An exact value in a type is the one number of that type that is nearest, ties to even: checked with fractions and with mpmath."""

from __future__ import annotations

from fractions import Fraction

import jax.numpy as jnp
import ml_dtypes
import mpmath
import numpy as np
import pytest
from flint import arb, ctx, fmpz
from mpmath import mpf

from nandetect.truth import Values

TYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]


def of(*balls):
    """Numbers, or fractions over a power of two, as exact values."""
    out = np.empty(len(balls), object)
    for at, ball in enumerate(balls):
        if isinstance(ball, Fraction):
            exponent = 1 - ball.denominator.bit_length()
            ball = arb((fmpz(ball.numerator), fmpz(exponent)))
        out[at] = ball
    return Values(out)


def neighbours(value, dtype):
    """The finite numbers of a type around a fraction, found by stepping from numpy's own rounding of it."""
    near = np.asarray(float(value)).astype(dtype)
    if not np.isfinite(near.astype(np.float64)):
        near = np.asarray(np.sign(float(value)) * float(jnp.finfo(dtype).max)).astype(dtype)
    with np.errstate(over="ignore"):
        steps = [near, np.nextafter(near, np.asarray(np.inf, dtype)), np.nextafter(near, np.asarray(-np.inf, dtype))]
    return [step for step in steps if np.isfinite(step.astype(np.float64))]


def bits(x):
    return int(np.asarray(x).view(f"u{np.asarray(x).dtype.itemsize}"))


def best(value, dtype):
    """The number of a type that is nearest to a fraction; of two equally near ones, the one whose last bit is even."""
    info = jnp.finfo(dtype)
    over = Fraction(float(info.max)) + Fraction(float(np.ldexp(1.0, info.maxexp - info.nmant - 2)))
    if abs(value) >= over:
        return np.asarray(np.inf if value > 0 else -np.inf, dtype)
    return min(neighbours(value, dtype), key=lambda near: (abs(Fraction(float(near)) - value), bits(near) % 2))


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_rounding_is_to_the_nearest_number_of_the_type(dtype):
    rng, info = np.random.default_rng(0), jnp.finfo(dtype)
    least, most = Fraction(float(info.smallest_subnormal)), Fraction(float(info.max))
    ulp_of_most = most - Fraction(float(np.nextafter(np.asarray(info.max, dtype), np.asarray(0, dtype))))
    cases = [
        Fraction(int(n), 2**70) * Fraction(2) ** int(e)
        for n, e in zip(rng.integers(-(2**62), 2**62, 300), rng.integers(-20, 30, 300), strict=True)
    ]
    # Halfway between two neighbours, and a little to either side of it; where numbers are subnormal, and where they end.
    one = 1 + Fraction(1, 2 ** (info.nmant + 1))
    cases += [sign * (at + eps) for sign in (-1, 1) for at in (one, 3 * one / 2) for eps in (0, Fraction(1, 2**90), -Fraction(1, 2**90))]
    cases += [least * n / 4 for n in range(-9, 30)] + [least * (n + Fraction(1, 2**60)) / 2 for n in range(-5, 9)]
    cases += [Fraction(float(info.tiny)) * (1 + Fraction(n, 2 ** (info.nmant + 3))) for n in range(-9, 10)]
    cases += [sign * (most + ulp_of_most * n / 8) for sign in (-1, 1) for n in range(9)]
    got = of(*cases).rounded(dtype)
    assert got.dtype == np.dtype(dtype)
    for value, rounded in zip(cases, got, strict=True):
        if abs(value) < least:
            assert abs(float(rounded)) == (float(least) if abs(value) > least / 2 else 0), value
        else:
            assert rounded == best(value, dtype), (value, float(value))


@pytest.mark.parametrize("dtype", TYPES[:3], ids=lambda dtype: np.dtype(dtype).name)
def test_irrational_numbers_are_rounded_as_mpmath_says(dtype):
    precision = jnp.finfo(dtype).nmant + 1
    with ctx.workprec(128):
        balls = [(arb(n) / 7).exp() for n in range(-30, 30)]
    for at, got in enumerate(of(*balls).rounded(dtype)):
        with mpmath.workdps(60):
            exact = mpmath.exp(mpf(at - 30) / 7)
        with mpmath.workprec(precision):
            assert float(got) == float(+exact)


def test_beyond_the_range_is_infinity_and_below_it_zero():
    values = of(arb(1e30).exp(), -arb(1e30).exp(), arb(-1e30).exp(), arb(0), arb.pos_inf(), arb.neg_inf(), arb.nan())
    for dtype in TYPES:
        np.testing.assert_array_equal(values.rounded(dtype).astype(np.float64), [np.inf, -np.inf, 0, 0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(values.magnitude, [np.inf, np.inf, 0, 0, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(values.defined, [True, True, True, True, False, False, False])
    np.testing.assert_array_equal(values.infinite, [0, 0, 0, 0, 1, -1, 0])


def test_distance_is_from_the_exact_value_and_infinite_where_one_is_not_finite():
    values = of(arb(1), arb(1), arb(1) / 3, arb.pos_inf(), arb.pos_inf(), arb.nan(), arb.nan(), arb(2))
    other = np.array([1, 1.5, 1 / 3, np.inf, -np.inf, 1, np.nan, np.nan], np.float32)
    third = abs(Fraction(1, 3) - Fraction(float(np.float32(1 / 3))))
    np.testing.assert_allclose(values.distance(other), [0, 0.5, float(third), 0, np.inf, np.inf, 0, np.inf], rtol=1e-7)
    assert of(arb(1)).distance(np.array([1.5], ml_dtypes.bfloat16)) == 0.5
