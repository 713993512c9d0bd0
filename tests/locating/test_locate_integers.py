"""Integers that did not hold a result, and indices out of bounds: told with the values, which Python's own integers prove."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.records import Report


def report_of(function: Callable[..., Any], *args: Any) -> Report:
    """The report of a step that breaks."""
    report = nd.locate(function, *args)
    assert report is not None
    return report


def causes(function, *args):
    return [(event.primitive, event.reason) for event in report_of(jax.jit(function), *args).cause]


def wrapped(number: int, dtype: str) -> int:
    bits = np.iinfo(dtype).bits
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


BYTES = np.array([100, 100], np.int8)
OVERFLOWS = {
    "product": (lambda n: jnp.sqrt((n * n).astype(jnp.float32)), [1, 50_000], "mul", "50000 * 50000 is ", 50_000**2, "int32"),
    "power": (lambda n: jnp.sqrt(n**3 / 2), [2_000], "integer_pow", "integer_pow(2000) is ", 2_000**3, "int32"),
    "sum": (
        lambda n: jnp.log(n.sum(dtype=jnp.int8) * 1.0),
        np.array([100, 100], np.int8),
        "reduce_sum",
        "reduce_sum(100, 100) is ",
        200,
        "int8",
    ),
    "running product": (lambda n: jnp.log(jnp.cumprod(n) * 1.0), list(range(1, 20)), "cumprod", "cumprod is ", math.factorial(17), "int32"),
    "narrower": (lambda n: jnp.sqrt(n.astype(jnp.int8) * 1.0), [200], "convert_element_type", "the number is ", 200, "int8"),
    "moved": (
        lambda n: jnp.sqrt(jnp.where(n > 1, n * n, n)[::-1, None] * 1.0),
        [50_000, 3],
        "mul",
        "50000 * 50000 is ",
        50_000**2,
        "int32",
    ),
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_an_integer_that_wrapped_is_the_cause_of_a_float_fault(name):
    function, given, primitive, lead, exact, dtype = OVERFLOWS[name]
    told = f"{lead}{exact}, which {dtype} does not hold: it wraps to {wrapped(exact, dtype)}"
    assert causes(function, jnp.asarray(given)) == [(primitive, told)]


def test_a_product_that_wraps_to_0_is_the_cause_of_a_division_by_zero():
    told = "65536 * 65536 is 4294967296, which int32 does not hold: it wraps to 0"
    assert causes(lambda n: 1 / (n * 65536), jnp.array([65536])) == [("mul", told)]


IN_LOOPS = {
    "while": (lambda n: jax.lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, c[1] * 100), (0, n))[1], "mul", "70000000 * 100"),
    "long before the end": (lambda n: jax.lax.fori_loop(0, 30_000, lambda i, c: c + 100_000, n), "add", "2147400070 + 100000"),
    "rows": (lambda n: jax.lax.scan(lambda c, _: (c * 3, c * 3000), n, None, length=10)[1], "mul", "1377810 * 3000"),
}


@pytest.mark.parametrize("name", IN_LOOPS)
def test_an_integer_that_wrapped_in_a_loop_is_the_cause_behind_the_loop(name):
    function, primitive, product = IN_LOOPS[name]
    (cause,) = report_of(jax.jit(lambda n: jnp.log(function(n).astype(jnp.float32))), jnp.int32(70)).cause
    assert cause.primitive == primitive
    assert cause.reason.startswith(f"{product} is ")
    assert "which int32 does not hold: it wraps to" in cause.reason


def test_an_integer_that_is_negative_as_it_should_be_has_not_wrapped():
    assert not any("wraps" in reason for _, reason in causes(lambda n: jnp.sqrt((n - 7) * 2.0), jnp.array([5])))


@pytest.mark.parametrize(
    ("function", "indices", "told"),
    [
        (lambda x, i: jnp.take(x, i), [0, 7], "index 7 is out of bounds for axis 0 of size 5, filled with nan"),
        (lambda x, i: x.at[i].get(mode="fill"), [0, -9], "index -9 is out of bounds for axis 0 of size 5, filled with nan"),
        (lambda x, i: jnp.stack([x, x]).at[:, i].get(mode="fill"), [8], "index 8 is out of bounds for axis 1 of size 5, filled with nan"),
    ],
)
def test_a_gather_out_of_bounds_names_the_index_and_the_size(function, indices, told):
    origin = report_of(jax.jit(function), jnp.arange(5.0), jnp.asarray(indices)).origin
    assert (origin.primitive, origin.reason) == ("gather", told)


def test_an_unsigned_index_that_wrapped_below_0_is_told_so():
    def f(x, lengths):
        return x.at[lengths - 1].get(mode="fill")

    report = report_of(jax.jit(f), jnp.arange(5.0), jnp.array([3, 0], jnp.uint8))
    assert report.origin.reason == "index 255 is out of bounds for axis 0 of size 5, filled with nan"
    assert [event.reason for event in report.cause] == ["0 - 1 is -1, which uint8 does not hold: it wraps to 255"]
