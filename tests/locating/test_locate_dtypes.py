"""Types: half and quarter precision, double precision, complex numbers, integers that hide a NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd

NARROW = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"]


@pytest.mark.parametrize("dtype", NARROW)
def test_log_of_a_narrow_zero(find, xs, dtype):
    f = jax.jit(lambda x: jnp.log(x.astype(jnp.float32)).astype(dtype))  # <-- origin
    origin = find(f, xs.astype(dtype)).origin
    assert (origin.primitive, origin.index, origin.operands[0].value) == ("log", (1,), 0.0)


@pytest.mark.parametrize(("dtype", "value"), [("float16", "inf"), ("float8_e5m2", "inf"), ("float8_e4m3fn", "nan")])
def test_cast_that_overflows_is_the_birth(find, dtype, value):
    f = jax.jit(lambda x: x.astype(dtype))  # <-- origin
    origin = find(f, jnp.array([1.0, 1e6])).origin
    assert (origin.primitive, origin.value, origin.index, origin.operands[0].value) == ("convert_element_type", value, (1,), 1e6)


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_division_in_a_scan(find, xs, dtype):
    def body(carry, x):
        return carry / x, carry  # <-- origin

    f = jax.jit(lambda xs: jax.lax.scan(body, jnp.ones((), dtype), xs))
    origin = find(f, xs.astype(dtype)).origin
    assert (origin.primitive, origin.dtype, origin.context) == ("div", dtype, (("scan", 1),))


def test_half_precision_square_overflows(find):
    f = jax.jit(lambda x: x * x)  # <-- origin
    origin = find(f, jnp.array([1.0, 300.0], jnp.float16)).origin
    assert (origin.primitive, origin.operands[0].value, origin.operands[0].dtype) == ("mul", 300.0, "float16")


def test_double_precision_is_followed_in_double_precision(find, x64):
    f = jax.jit(lambda x: jax.lax.scan(lambda c, y: (c * y, None), 1.0, x)[0])  # <-- origin
    origin = find(f, jnp.full(3, 1e150)).origin
    assert (origin.dtype, origin.context) == ("float64", (("scan", 2),))
    assert origin.operands[0].value == pytest.approx(1e300)


def test_double_precision_gather_and_gradient_of_a_scan(find, x64):
    def f(x):
        return jax.lax.scan(lambda c, y: (c + jnp.sqrt(y), None), 0.0, x[jnp.array([1, 0])])[0]  # <-- origin

    origin = find(jax.jit(jax.grad(f)), jnp.array([0.0, 1.0])).origin
    assert (origin.dtype, origin.context) == ("float64", (("scan", 1),))


def test_complex_log_of_zero(find):
    f = jax.jit(lambda z: jnp.log(z))  # <-- origin
    origin = find(f, jnp.array([1 + 1j, 0j])).origin
    assert (origin.primitive, origin.index, origin.operands[0].value) == ("log", (1,), 0j)


def test_complex_number_is_bad_where_either_part_is(find):
    f = jax.jit(lambda x: jax.lax.complex(x * 0, 1 / x))  # <-- origin
    report = find(f, jnp.array([1.0, 0.0]))
    assert (report.origin.primitive, report.chain[-1].count) == ("div", 1)


def test_integer_argument_is_an_operand(find):
    f = jax.jit(lambda n: jnp.log(n))  # <-- origin
    assert find(f, jnp.array([1, 0])).origin.primitive == "log"


def test_subnormal_that_is_flushed_is_a_division_by_zero(find):
    f = jax.jit(lambda x: 1 / (x * 0.5))  # <-- origin
    report = find(f, jnp.array([np.finfo(np.float32).tiny]))
    assert (report.origin.primitive, report.origin.operands[1].value) == ("div", 0.0)


def test_subnormals_of_an_operand_are_counted(find):
    f = jax.jit(lambda x, y: y / x)  # <-- origin
    origin = find(f, np.array([1e-40, 1.0, 0.0], np.float32), jnp.ones(3)).origin
    assert (origin.operands[1].subnormal, origin.operands[1].zero) == (1, 1)


@pytest.mark.parametrize("dtype", ["float8_e8m0fnu", "float4_e2m1fn", "int4"])
def test_types_without_inf_are_looked_at_without_fuss(dtype):
    if not hasattr(jnp, dtype):
        pytest.skip(f"this JAX has no {dtype}")
    assert nd.locate(jax.jit(lambda x: x), jnp.array([1.0, 2.0]).astype(dtype)) is None
