"""Hazards by family, in spellings of their own, and what looks like them and is none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import nandetect as nd

HALF = jnp.float16
LOWEST = jnp.finfo(jnp.float32).min


def codes(step, *args):
    report = nd.locate(step, *args)
    assert report is not None
    return [fix.code for fix in report.fixes], report


def beta(ab):
    a, b = ab
    g = jax.scipy.special.gamma
    return jnp.log(g(a) * g(b) / g(a + b))


def multiplied(p):
    return jnp.log(lax.fori_loop(0, 500, lambda i, c: c * p, 1.0))


def filtered(table, likelihood):
    def forward(alpha, seen):
        return (alpha @ table) * seen, None

    return jnp.log(lax.scan(forward, jnp.ones(2), likelihood)[0].sum())


def added(x):
    return jnp.log(lax.scan(lambda c, v: (c + v * v, None), 0.0, x)[0])


def padded(q):
    table = jnp.concatenate([jnp.arange(3.0), jnp.full(2, jnp.inf)])
    at = jnp.floor(q).astype(int)
    return (table[at] + (q - at) * (table[at + 1] - table[at])).sum()


def masked_twice(x):
    one = jnp.where(jnp.array([False, False]), 0.0, LOWEST)
    return jax.nn.softmax(x + (one + one))


def pairs(n):
    return 1 / jnp.sqrt((n * (n - 1)).astype(jnp.float32))


def scattered(x):
    return jnp.zeros(2, HALF).at[jnp.zeros(x.shape, int)].add(x) / 400


def interval(step):
    return (step - 5.0) / (jnp.float32(5) - 5.0 + 0 * step)


def decayed(rates, x):
    total = jnp.cumsum(rates)
    return (jnp.cumsum(x * jnp.exp(-total)) * jnp.exp(total)).sum()


CASES = {
    "log of the beta function": (beta, (jnp.array([50.0, 60.0]),), "ND220", True),
    "inverse of softplus": (lambda x: jnp.log(jnp.expm1(x)).sum(), (jnp.array([200.0, 1.0]),), "ND230", True),
    "log of a normal interval": (
        lambda x: jnp.log(jax.scipy.stats.norm.cdf(x + 1) - jax.scipy.stats.norm.cdf(x)),
        (jnp.float32(30),),
        "ND296",
        True,
    ),
    "log of a difference of exponentials": (lambda x: jnp.log(jnp.exp(-x) - jnp.exp(-2 * x)), (jnp.float32(200),), "ND296", True),
    "bound that is 1": (lambda p: jnp.log1p(-jnp.minimum(p, 1 - 1e-10)), (jnp.float32(1),), "ND298", False),
    "product in a loop": (multiplied, (jnp.float32(0.5),), "ND299", False),
    "recursion of probabilities": (filtered, (jnp.full((2, 2), 0.5), jnp.full((200, 2), 0.1)), "ND299", False),
    "sine over its angle": (lambda x: (jnp.sin(x) / x).sum(), (jnp.array([0.0, 1.0]),), "ND292", True),
    "x over expm1": (lambda x: (x * jnp.reciprocal(jnp.exp(x) - 1)).sum(), (jnp.array([0.0, 1.0]),), "ND292", True),
    "range of a constant": (lambda x: (x.max() - x) / jnp.ptp(x), (jnp.ones(3),), "ND293", True),
    "one sample": (lambda x: jnp.var(x, ddof=1), (jnp.ones(1),), "ND294", True),
    "no sample": (lambda x: x[2:].mean(), (jnp.ones(2),), "ND294", True),
    "quantile of 0": (lambda p: lax.erf_inv(2 * p - 1).sum(), (jnp.array([0.0, 0.5]),), "ND295", False),
    "odds": (lambda p: (p * (1 / (1 - p))).sum(), (jnp.array([1.0, 0.5]),), "ND297", False),
    "temperature of 0": (lambda x, t: jax.nn.softmax(x / t), (jnp.arange(3.0), jnp.float32(0)), "ND286", False),
    "no steps to warm up": (lambda t, n: jnp.minimum(t / n, 1.0), (jnp.int32(0), jnp.int32(0)), "ND285", False),
    "float8": (lambda x: x.astype(jnp.float8_e4m3fn).astype(jnp.float32), (jnp.array([500.0, 1.0]),), "ND257", False),
    "likelihood ratio": (lambda x, y: jnp.exp(x.sum()) / jnp.exp(y.sum()), (jnp.full(3, 99.0), jnp.full(3, 98.0)), "ND258", True),
    "integers that wrapped": (pairs, (jnp.int32(50000),), "ND259", True),
    "table with inf": (padded, (jnp.array([2.0]),), "ND269", True),
    "masks added up": (masked_twice, (jnp.zeros(2),), "ND270", True),
    "index out of bounds": (lambda x, i: jnp.take(x, i), (jnp.ones(3), jnp.array([0, 7])), "ND291", False),
    "square root of eigenvalues": (lambda x: 2 + jnp.sqrt(jnp.linalg.eigh(x)[0]), (jnp.ones((3, 3)) - 1e-6 * jnp.eye(3),), "ND227", False),
    "fractional power": (lambda x: (x**1.5).sum(), (jnp.array([-1.0, 2.0]),), "ND228", False),
    "sum in half precision": (lambda x: x.sum() / x.size, (jnp.full(3000, 30, HALF),), "ND255", True),
    "scatter in half precision": (scattered, (jnp.full(400, 200, HALF),), "ND255", True),
    "log1p times 0": (lambda y, p: ((1 - y) * jnp.log1p(-p)).sum(), (jnp.ones(2), jnp.ones(2)), "ND209", True),
    "entropy as a dot product": (lambda p: jnp.vdot(p, jnp.log2(p)), (jnp.array([0.0, 1.0]),), "ND209", True),
    "epsilon that is lost in half precision": (
        lambda x: lax.rsqrt(x * x + jnp.asarray(1e-12, HALF)) * x,
        (jnp.zeros(2, HALF),),
        "ND248",
        True,
    ),
    "running product": (
        lambda x: (x / jnp.cumprod(x + 1)).sum() + jnp.cumprod(x)[-1] / x.prod(),
        (jnp.full(20, 1e3),),
        "ND287",
        False,
    ),
    "decay that is divided out": (decayed, (jnp.full(80, -2.0), jnp.ones(80)), "ND288", False),
    "guard against 0 alone": (jax.grad(lambda x, y: jnp.where(x != 0, y / jnp.where(x != 0, x, 1), 0)), (1e-25, 1e-25), "ND289", False),
    "no variance": (lambda x: jnp.linalg.cholesky(x - x.T), (jnp.eye(2),), "ND271", False),
    "log of one less exp": (lambda x, y: (y + jnp.log1p(-jnp.exp(x - y))).sum(), (jnp.array([-1e-10, -3.0]), jnp.zeros(2)), "ND216", True),
    "slope of QR": (jax.grad(lambda x: jnp.linalg.qr(x)[0][0, 0]), (jnp.array([[1.0, 0.0], [2.0, 0.0]]),), "ND276", False),
    "inverse": (lambda x: jnp.linalg.inv(x), (jnp.array([[1.0, 2.0], [2.0, 4.0]]),), "ND277", False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_hazard_is_named_however_it_is_written(case):
    step, args, code, proven = CASES[case]
    found, report = codes(step, *args)
    assert found[:1] == [code]
    assert report.fixes[0].proven == proven


# What looks like one, and the codes that would be wrong there.
LURES = {
    "a sum in a loop": (added, (jnp.zeros(3),), {"ND299"}),
    "sine of another angle": (lambda x: (jnp.sin(x + 1) / x).sum(), (jnp.array([0.0, 1.0]),), {"ND292"}),
    "difference that is no range": (lambda x, a: x / (a - x), (jnp.ones(2), jnp.float32(1)), {"ND293"}),
    "a bound of 1": (lambda p: jnp.log1p(-jnp.minimum(p, 1.0)), (jnp.float32(1),), {"ND298"}),
    "a number that is one element's": (lambda x: 1 / x, (jnp.float32(0),), {"ND286"}),
    "a sum of large numbers": (lambda x: x + x, (jnp.array([-3e38, 1.0]),), set()),
    "exponential of a running sum": (lambda x: jnp.exp(-jnp.cumsum(x)).sum(), (jnp.full(80, -2.0),), {"ND288"}),
    "a solved system": (jnp.linalg.solve, (jnp.ones((2, 2)), jnp.eye(2)[0]), {"ND277"}),
    "arithmetic of small integers": (lambda n: 1 / (n - n).astype(jnp.float32), (jnp.int32(3),), {"ND259"}),
}


@pytest.mark.parametrize("case", LURES)
def test_what_looks_like_it_is_not_called_so(case):
    step, args, wrong = LURES[case]
    assert not wrong & set(codes(step, *args)[0])


def test_advice_that_is_no_form_is_not_called_tried():
    _, report = codes(multiplied, jnp.float32(0.5))
    fix = report.fixes[0]
    assert (fix.proven, fix.proof) == (False, None)
    assert fix.why.startswith("the product of 500 rounds is 0: every round multiplies")


@jax.custom_jvp
def cube_root(x):
    return jnp.cbrt(x)


@cube_root.defjvp
def cube_root_slope(primals, tangents):
    y = cube_root(primals[0])
    return y, tangents[0] / (3 * y * y)


@jax.custom_vjp
def root(x):
    return jnp.sqrt(x)


root.defvjp(lambda x: (jnp.sqrt(x), jnp.sqrt(x)), lambda y, g: (0.5 * g / y,))


@pytest.mark.parametrize("function", [cube_root, root])
def test_a_rule_that_a_user_wrote_is_what_breaks(function):
    found, _ = codes(jax.jit(jax.grad(lambda x: function(x).sum())), jnp.array([0.0, 1.0]))
    assert found == ["ND300"]


def test_a_librarys_rule_is_no_rule_of_the_users():
    found, _ = codes(jax.jit(jax.grad(lambda x: jax.nn.logsumexp(x))), jnp.full(2, -jnp.inf))
    assert found[0] == "ND265"
