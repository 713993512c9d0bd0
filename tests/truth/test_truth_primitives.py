"""Every primitive that the exact evaluation claims agrees with mpmath at 60 digits, or with XLA where XLA is exact: on small integers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.scipy import special
from mpmath import mpf

from nandetect import compat, truth
from nandetect.errors import UsageError
from nandetect.primitives import named
from nandetect.primitives.table import BY_NAME
from nandetect.truth.table import RULES

ORDINARY = [-88.8, -3.75, -0.4, -1e-20, 0.0, 1e-38, 0.3, 1.0, 2.5, 31.0, 88.75]
POSITIVE = [1e-38, 1e-9, 0.3, 1.0, 2.5, 88.75, 3e38]
INSIDE = [-0.9999999, -0.4, -1e-20, 0.0, 1e-38, 0.3, 0.9999999]
HUGE = [-1e12, -1e6, 1e6, 1e12]
HALVES = [-2.5, -1.5, -0.5, 0.0, 0.4999, 0.5, 1.5, 2.5, 3.25, -7.75]


def logistic(x):
    return 1 / (1 + mpmath.exp(-x))


# Functions of one real number: as JAX writes it, as mpmath does, and the points at which the two are compared.
ONE_VARIABLE = {
    "exp": (lax.exp, mpmath.exp, ORDINARY + HUGE),
    "exp2": (lax.exp2, lambda x: mpmath.exp(x * mpmath.log(2)), ORDINARY + HUGE),
    "expm1": (lax.expm1, mpmath.expm1, ORDINARY + HUGE),
    "log": (lax.log, mpmath.log, POSITIVE),
    "log1p": (lax.log1p, mpmath.log1p, [*POSITIVE, -0.9999999, -1e-30]),
    "logistic": (lax.logistic, logistic, ORDINARY + HUGE),
    "tanh": (lax.tanh, mpmath.tanh, ORDINARY + HUGE),
    "sinh": (lax.sinh, mpmath.sinh, ORDINARY + HUGE),
    "cosh": (lax.cosh, mpmath.cosh, ORDINARY + HUGE),
    "asinh": (lax.asinh, mpmath.asinh, ORDINARY + HUGE),
    "acosh": (lax.acosh, mpmath.acosh, [1.0, 1.0000001, 2.5, 3e38]),
    "atanh": (lax.atanh, mpmath.atanh, INSIDE),
    "sin": (lax.sin, mpmath.sin, ORDINARY + HUGE),
    "cos": (lax.cos, mpmath.cos, ORDINARY + HUGE),
    "tan": (lax.tan, mpmath.tan, ORDINARY + HUGE),
    "asin": (lax.asin, mpmath.asin, [*INSIDE, 1.0, -1.0]),
    "acos": (lax.acos, mpmath.acos, [*INSIDE, 1.0, -1.0]),
    "atan": (lax.atan, mpmath.atan, ORDINARY + HUGE),
    "sqrt": (lax.sqrt, mpmath.sqrt, [0.0, *POSITIVE]),
    "rsqrt": (lax.rsqrt, lambda x: 1 / mpmath.sqrt(x), POSITIVE),
    "cbrt": (lax.cbrt, lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), ORDINARY + HUGE),
    "erf": (lax.erf, mpmath.erf, ORDINARY),
    "erfc": (lax.erfc, mpmath.erfc, ORDINARY),
    "erf_inv": (lax.erf_inv, mpmath.erfinv, INSIDE),
    "lgamma": (lax.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x))), [*POSITIVE[1:-1], 1e6, -0.3, -2.75, -30.5]),
    "digamma": (lax.digamma, mpmath.digamma, [*POSITIVE[1:], -0.3, -2.75, -30.5]),
    "bessel_i0e": (lax.bessel_i0e, lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)), ORDINARY),
    "bessel_i1e": (lax.bessel_i1e, lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)), ORDINARY),
    "neg": (lax.neg, lambda x: -x, ORDINARY),
    "abs": (lax.abs, abs, ORDINARY),
    "sign": (lax.sign, mpmath.sign, ORDINARY),
    "floor": (lax.floor, mpmath.floor, HALVES),
    "ceil": (lax.ceil, mpmath.ceil, HALVES),
    "round": (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), mpmath.nint, HALVES),
    "square": (lax.square, lambda x: x * x, ORDINARY),
    "integer_pow": (lambda x: lax.integer_pow(x, -7), lambda x: x**-7, POSITIVE),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 5, 2), lambda x: x, ORDINARY),
    # A cast from float32 to bfloat16 rounds in the program, and not in the exact evaluation.
    "convert_element_type": (lambda x: lax.convert_element_type(x, jnp.bfloat16), lambda x: x, ORDINARY),
}


def polygamma(m, x):
    """`polygamma` with the order as a whole number, which is what JAX wants, though it makes it a float."""
    return special.polygamma(m.astype(np.int32), x)


PAIRS = [(0.3, 7.25), (-5.5, 2.0), (1e-30, 1e30), (2.5, -3.75), (-1e-20, -0.1), (88.5, 88.75), (1.0, 1e-30)]
POSITIVE_PAIRS = [(0.3, 7.25), (5.5, 2.0), (1e-9, 3.0), (2.5, 3.75), (12.0, 1e-4), (40.0, 88.75)]
WITH_REMAINDERS = [(7.25, 0.3), (-7.25, 0.3), (7.25, -2.0), (-6.0, 2.0), (1e9, 0.7), (3e38, 7e-30)]
TWO_VARIABLES = {
    "add": (lax.add, lambda x, y: x + y, PAIRS),
    "sub": (lax.sub, lambda x, y: x - y, PAIRS),
    "mul": (lax.mul, lambda x, y: x * y, PAIRS),
    "div": (lax.div, lambda x, y: x / y, PAIRS),
    "rem": (
        lax.rem,
        lambda x, y: mpmath.sign(x) * mpmath.fmod(abs(x), abs(y)),
        WITH_REMAINDERS,
    ),
    "pow": (lax.pow, mpmath.power, [*POSITIVE_PAIRS, (-2.0, 3.0), (-2.0, -4.0), (2.0, 0.0), (1e30, 1e3), (0.0, 0.5)]),
    "atan2": (lax.atan2, mpmath.atan2, [*PAIRS, (0.0, -1.0), (0.0, 3.0), (-2.0, 0.0)]),
    "max": (lax.max, max, PAIRS),
    "min": (lax.min, min, PAIRS),
    "clamp": (lambda x, y: lax.clamp(-y, x, y), lambda x, y: min(max(x, -y), y), POSITIVE_PAIRS),
    "igamma": (lax.igamma, lambda a, x: mpmath.gammainc(a, 0, x, regularized=True), POSITIVE_PAIRS),
    "igammac": (lax.igammac, lambda a, x: mpmath.gammainc(a, x, regularized=True), POSITIVE_PAIRS),
    "zeta": (special.zeta, mpmath.zeta, [(1.5, 0.25), (2.0, 1.0), (7.0, 31.5)]),
    "polygamma": (polygamma, lambda m, x: mpmath.psi(int(m), x), [(0.0, 2.5), (1.0, 0.3), (1.0, -2.75), (4.0, 7.5), (3.0, -0.4)]),
}

X = np.array([[3, -1, 4, 1], [-5, 9, 2, -6], [5, 3, -5, 8]], np.float32)
Y = np.array([[2, 7, -1, 8], [2, 8, -1, 8], [-2, 8, 4, 5]], np.float32)
TIES = np.array([[1, 1, 0, 1], [2, -1, 2, 2], [0, 0, 0, 0]], np.float32)
ROWS = np.array([[2], [0], [2], [7]], np.int32)
WINDOW = lax.ScatterDimensionNumbers(update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,))


def scattered(function, mode="drop"):
    """Rows of `Y` and of ones put at rows 2, 0, 2 and 7 of `X`: one twice, one outside."""
    updates = np.concatenate([Y, np.ones((1, 4), np.float32)])
    return lambda x: function(x, ROWS, updates, WINDOW, mode=mode)


def running(function):
    return lambda x: (function(x, 1), function(x, 0, reverse=True))


def mixture(x):
    return lax.sort((jnp.asarray(TIES), x, jnp.arange(12, dtype=jnp.int32).reshape(3, 4)), dimension=1, num_keys=2)


@jax.custom_jvp
def twice(x):
    return x + x


@jax.custom_vjp
def thrice(x):
    return x + x + x


twice.defjvp(lambda primals, tangents: (twice(*primals), twice(*tangents)))
thrice.defvjp(lambda x: (thrice(x), None), lambda _, g: (3 * g,))

# Functions of small integers, which float32 computes exactly, so that XLA itself is the truth.
INTEGERS = {
    "add_any": jax.grad(lambda x: jnp.sum(x * x + x * 3)),
    "is_finite": lambda x: lax.is_finite(lax.concatenate([x, x / (x - 5)], 0)),
    "eq": lambda x: lax.eq(x, Y),
    "ne": lambda x: lax.ne(x, x),
    "lt": lambda x: lax.lt(x, Y),
    "le": lambda x: lax.le(x, Y),
    "gt": lambda x: lax.gt(x, Y),
    "ge": lambda x: lax.ge(x, x),
    "reduce_sum": lambda x: (x.sum(), x.sum(0), x.sum(1)),
    "reduce_prod": lambda x: (x.prod(0), x[:0].prod(0)),
    "reduce_max": lambda x: (x.max(), x.max(0), lax.reduce(x[:0], -np.inf, lax.max, (0,))),
    "reduce_min": lambda x: (x.min(1), lax.reduce(x[:0], np.inf, lax.min, (0,))),
    "cumsum": running(lax.cumsum),
    "cumprod": running(lax.cumprod),
    "cummax": running(lax.cummax),
    "cummin": running(lax.cummin),
    "argmax": lambda x: (jnp.argmax(x, 1), jnp.argmax(TIES * x[0, 0], 0), jnp.argmax(x / 0.0 * 0.0, 1)),
    "argmin": lambda x: (jnp.argmin(x, 1), jnp.argmin(TIES * x[0, 0], 1)),
    "dot_general": lambda x: (x @ Y.T, jnp.einsum("ij,ik->jk", x, Y), jnp.einsum("ij,ij->i", x, Y), jnp.tensordot(x, Y, 2)),
    "sort": lambda x: (mixture(x), lax.sort(x, dimension=0)),
    "top_k": lambda x: lax.top_k(x, 2),
    "iota": lambda x: x + lax.broadcasted_iota(np.float32, (3, 4), 1),
    "gather": lambda x: (x[ROWS[:, 0]], x.at[ROWS[:, 0]].get(mode="fill", fill_value=9), jnp.take_along_axis(x, ROWS[:3], axis=1)),
    "scatter": lambda x: x.at[np.array([2, 5])].set(Y[:2], mode="drop"),
    "scatter-add": lambda x: (scattered(lax.scatter_add)(x), scattered(lax.scatter_add, "clip")(x)),
    "scatter-sub": scattered(lax.scatter_sub),
    "scatter-mul": scattered(lax.scatter_mul),
    "scatter-min": scattered(lax.scatter_min),
    "scatter-max": scattered(lax.scatter_max),
    "copy": lambda x: lax.optimization_barrier(jnp.array(x, copy=True)),
    "optimization_barrier": lambda x: lax.optimization_barrier(x),
    "reshape": lambda x: lax.reshape(x, (2, 6), (1, 0)),
    "squeeze": lambda x: lax.squeeze(x[:1], (0,)),
    "stack": lambda x: jnp.stack([x, 2 * x], 1),
    "unstack": lambda x: jnp.unstack(x, axis=1),
    "tile": lambda x: jnp.tile(x, (2, 3)),
    "name": lambda x: checkpoint_name(x, "hidden"),
    "device_put": lambda x: jax.device_put(x + 1),
    "transpose": lambda x: x.T,
    "rev": lambda x: lax.rev(x, (1,)),
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (1, 2)),
    "slice": lambda x: lax.slice(x, (0, 1), (3, 4), (2, 2)),
    "split": lambda x: lax.split(x, (1, 3), 1),
    "concatenate": lambda x: lax.concatenate([x, Y], 1),
    "pad": lambda x: lax.pad(x, np.float32(7), ((1, -1, 0), (-1, 2, 1))),
    "select_n": lambda x: lax.select_n(TIES > 0, x, Y),
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (np.int32(2), np.int32(-9)), (2, 2)),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, Y[:2, :2], (np.int32(2), np.int32(1))),
    "stop_gradient": lax.stop_gradient,
    "cond": lambda x: lax.cond(x[0, 0] > x[0, 1], lambda v: v + 1, lambda v: v - 1, x),
    "scan": lambda x: lax.scan(lambda c, row: (c + row, c * row), x[0], x, reverse=True),
    "while": lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + s[1]), (0, x)),
    "jit": lambda x: jax.jit(lambda v: v + 2)(x),
    "remat": jax.checkpoint(lambda x: x + 3),
    "custom_jvp_call": twice,
    "custom_vjp_call": thrice,
    "to integers": lambda x: (x / 2).astype(np.int32) + (x > 0).astype(np.int32) + x.astype(bool),
    "to uint8": lambda x: lax.convert_element_type(x, np.uint8) * (x >= 0) + (x / 0.0 > 0),
    "round away": lambda x: lax.round(x / 2, lax.RoundingMethod.AWAY_FROM_ZERO),
}
# Other names of primitives that are tested under one: not every JAX uses them, or only a mesh of devices does, where they change nothing.
SAME = {
    **{f"scatter_{name}": f"scatter-{name}" for name in ("add", "sub", "mul", "min", "max")},
    "expand_dims": "broadcast_in_dim",
    **dict.fromkeys(("copy_p", "sharding_constraint", "pvary", "mesh_cast", "reshard", "pcast"), "copy"),
    **dict.fromkeys(("pjit", "closed_call", "core_call"), "jit"),
    **dict.fromkeys(("remat2", "checkpoint"), "remat"),
}
SEPARATE = {"cumlogsumexp", "regularized_incomplete_beta"}
# Primitives that older releases of JAX do not have, and write with others.
NEWER = {"log2", "one_minus_square", "polynomial", "stack", "unstack", "tile"}
HAS = vars(lax)
if "log2" in HAS:
    ONE_VARIABLE["log2"] = (HAS["log2"], lambda x: mpmath.log(x, 2), POSITIVE)
if "one_minus_square" in HAS:
    ONE_VARIABLE["one_minus_square"] = (HAS["one_minus_square"], lambda x: 1 - x * x, ORDINARY)
if "polynomial" in HAS:
    TWO_VARIABLES["polynomial"] = (lambda x, y: HAS["polynomial"](x, [y, 3.0, y]), lambda x, y: y + x * (3 + x * y), PAIRS)


def as_mpf(ball):
    """The midpoint of a ball as mpmath's number, to the last bit."""
    mantissa, exponent = ball.mid().man_exp()
    with mpmath.workprec(20_000):
        return mpmath.ldexp(mpf(int(mantissa)), int(exponent))


def agree(function, reference, columns):
    """The exact values are the reference's to 1e-30, at each of the points."""
    arrays = [np.array(column, np.float32) for column in columns]
    (values,) = truth.of(function, *arrays).at(*arrays)
    assert values.defined.all()
    with mpmath.workdps(60):
        for ball, *point in zip(values.balls, *arrays, strict=True):
            want, got = reference(*(mpf(float(v)) for v in point)), as_mpf(ball)
            assert abs(got - want) <= mpf("1e-30") * (abs(want) if want else 1), point


def primitives(jaxpr):
    """The names of all primitives in a jaxpr."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for _, inner in compat.sub_jaxprs(eqn):
            yield from primitives(compat.open_jaxpr(inner)[0])


@pytest.mark.parametrize("name", ONE_VARIABLE)
def test_a_function_of_one_variable_agrees_with_mpmath(name):
    function, reference, points = ONE_VARIABLE[name]
    assert name in set(primitives(jax.make_jaxpr(function)(np.float32(0.5)).jaxpr))
    agree(function, reference, [points])


@pytest.mark.parametrize("name", TWO_VARIABLES)
def test_a_function_of_two_variables_agrees_with_mpmath(name):
    function, reference, pairs = TWO_VARIABLES[name]
    assert name in set(primitives(jax.make_jaxpr(function)(np.float32(2), np.float32(2)).jaxpr))
    agree(function, reference, list(zip(*pairs, strict=True)))


def test_the_incomplete_beta_function_agrees_with_mpmath():
    points = [(0.3, 7.25, 0.1), (5.5, 2.0, 0.75), (1.0, 1.0, 0.5), (12.0, 0.5, 0.999)]
    agree(lax.betainc, lambda a, b, x: mpmath.betainc(a, b, 0, x, regularized=True), list(zip(*points, strict=True)))


def test_a_running_logsumexp_agrees_with_mpmath():
    x = np.array([1.5, -np.inf, 88.75, -3e4, 3e4, 3e4], np.float32)
    (values,) = truth.of(lax.cumlogsumexp, x).at(x)
    with mpmath.workdps(60):
        for at, ball in enumerate(values.balls):
            want = mpmath.log(mpmath.fsum(mpmath.exp(mpf(float(v))) for v in x[: at + 1] if np.isfinite(v)))
            assert abs(as_mpf(ball) - want) <= mpf("1e-30") * abs(want)


@pytest.mark.parametrize("name", INTEGERS)
def test_on_integers_the_exact_values_are_those_of_xla(name):
    function = INTEGERS[name]
    exact = truth.of(function, X)
    assert exact.unsupported == ()
    for values, want in zip(exact.at(X), jax.tree.leaves(jax.jit(function)(X)), strict=True):
        np.testing.assert_array_equal(values.rounded(np.float64), np.asarray(want, np.float64))


def test_no_primitive_is_claimed_without_a_test():
    tested = {*ONE_VARIABLE, *TWO_VARIABLES, *INTEGERS, *SAME, *SEPARATE, *NEWER}
    carriers = {name for name, record in BY_NAME.items() if record.loops or (record.calls and record.name == name)}
    assert {*RULES, *carriers, "cond"} <= tested


@pytest.mark.parametrize("name", [name for name in INTEGERS if name in RULES or named(name).loops or name == "cond"])
def test_the_case_of_a_primitive_contains_it(name):
    if name in NEWER and not hasattr(lax, name):
        pytest.skip("this JAX has no such primitive")
    found = {SAME.get(primitive, primitive) for primitive in primitives(jax.make_jaxpr(INTEGERS[name])(X).jaxpr)}
    assert name in found


def test_what_has_no_exact_rule_falls_back_to_float64_and_says_so():
    matrix = np.array([[2, 1], [1, 3]], np.float32)
    function = truth.of(lambda x: jnp.linalg.cholesky(x), matrix)
    assert not function.is_exact and function.unsupported == ("cholesky",)
    np.testing.assert_allclose(function.at(matrix)[0].rounded(np.float64), np.linalg.cholesky(matrix.astype(np.float64)), rtol=1e-15)
    with pytest.raises(UsageError, match="cholesky has no exact rule"):
        truth.derivative_at(function, (matrix,))


def test_complex_numbers_have_no_exact_rule():
    assert truth.of(lambda x: jnp.abs(jnp.exp(1j * x)), np.float32(1)).unsupported[-1] == "abs (complex)"
