"""Exact values and gradients of whole functions: closed forms in mpmath, cancellation, ties, singularities, derivatives by differences."""

from __future__ import annotations

import time
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flint import arb, ctx
from jax import lax
from mpmath import mpf

from nandetect import truth, widths
from nandetect.errors import UsageError

LABELS = np.array([[0, 1, 0], [0.25, 0, 0.75]], np.float32)


def as_mpf(ball):
    """The midpoint of a ball as mpmath's number, to the last bit."""
    mantissa, exponent = ball.mid().man_exp()
    with mpmath.workprec(20_000):
        return mpmath.ldexp(mpf(int(mantissa)), int(exponent))


def close(ball, want, to="1e-30"):
    return abs(as_mpf(ball) - want) <= mpf(to) * (abs(want) if want else 1)


def exact(function, *args):
    """The one exact result of a function of arguments that are cast to float32."""
    args = [np.asarray(arg, np.float32) for arg in args]
    (values,) = truth.of(function, *args).at(*args)
    return values


def naive(logits, labels):
    exps = jnp.exp(logits)
    return -jnp.sum(labels * jnp.log(exps / exps.sum(-1, keepdims=True)))


def stable(logits, labels):
    return -jnp.sum(labels * jax.nn.log_softmax(logits))


def focal(x):
    p = jax.nn.sigmoid(x)
    return -jnp.mean((1 - p) ** 2 * jnp.log(p))


def focal_stable(x):
    return jnp.mean(jax.nn.sigmoid(-x) ** 2 * jax.nn.softplus(-x))


def kl(x):
    p, q = jnp.exp(x) / jnp.sum(jnp.exp(x), -1, keepdims=True), jax.nn.softmax(-x)
    return jnp.sum(p * jnp.log(p / q))


def kl_stable(x):
    p, q = jax.nn.log_softmax(x), jax.nn.log_softmax(-x)
    return jnp.sum(jnp.exp(p) * (p - q))


def two_sigmoids(x):
    return -jnp.mean(0.25 * jnp.log(1 / (1 + jnp.exp(-x))) + 0.75 * jnp.log(1 - 1 / (1 + jnp.exp(-x))))


def with_logits(x):
    return jnp.mean(jnp.maximum(x, 0) - 0.25 * x + jnp.log1p(jnp.exp(-jnp.abs(x))))


def huber(x):
    return jnp.mean(jnp.where(jnp.abs(x) < 1, 0.5 * x * x, jnp.abs(x) - 0.5))


def huber_rooted(x):
    return jnp.mean(jnp.where(jnp.sqrt(x * x) < 1, 0.5 * jnp.sqrt(x * x) ** 2, jnp.sqrt(x * x) - 0.5))


def cosine(x):
    return x[0] @ x[1] / jnp.sqrt((x[0] @ x[0]) * (x[1] @ x[1]))


def cosine_of_units(x):
    return (x[0] * lax.rsqrt(x[0] @ x[0])) @ (x[1] * lax.rsqrt(x[1] @ x[1]))


# Pairs of one function, as a first attempt writes it and written better. Their truths must be the same, though no rule knows of the pair.
TWICE = {
    "cross-entropy": (lambda x: naive(x, LABELS), lambda x: stable(x, LABELS)),
    "binary cross-entropy": (two_sigmoids, with_logits),
    "log-sum-exp": (lambda x: jnp.log(jnp.sum(jnp.exp(x))), jax.nn.logsumexp),
    "softplus": (lambda x: jnp.sum(jnp.log(1 + jnp.exp(x))), lambda x: jnp.sum(jax.nn.softplus(x))),
    "kl": (kl, kl_stable),
    "gaussian": (lambda x: jnp.mean(jnp.log(jnp.exp(x)) + x**2 / jnp.exp(x) ** 2), lambda x: jnp.mean(x + x**2 * jnp.exp(-2 * x))),
    "huber": (huber_rooted, huber),
    "focal": (focal, focal_stable),
    "poisson": (lambda x: jnp.mean(jnp.exp(x) - 3 * jnp.log(jnp.exp(x))), lambda x: jnp.mean(jnp.exp(x) - 3 * x)),
    "variance": (lambda x: jnp.sum(x * x) - jnp.sum(x) * jnp.sum(x) / 6, lambda x: jnp.sum((x - jnp.sum(x) / 6) ** 2)),
    "cosine": (cosine, cosine_of_units),
}


@pytest.mark.parametrize("scale", [1e-6, 1, 100, 3e3, 1e6, 1e12])
@pytest.mark.parametrize("name", TWICE)
def test_two_ways_to_write_a_loss_are_one_in_truth(name, scale):
    x = np.array([[1, -2, 0.5], [3, 3, -0.75]], np.float32) * np.float32(scale)
    for one, other in zip(*(truth.of(jax.value_and_grad(loss), x).at(x) for loss in TWICE[name]), strict=True):
        assert one.defined.all() and other.defined.all()
        with ctx.workprec(256):
            for a, b in zip(one.balls.reshape(-1), other.balls.reshape(-1), strict=True):
                assert abs(a - b) < abs(a) * arb("1e-30") or abs(a - b) < arb(2) ** -1100


@pytest.mark.parametrize("loss", [naive, stable])
@pytest.mark.parametrize("scale", [1e-6, 1, 1e3, 1e6, 1e30])
def test_the_gradient_of_a_cross_entropy_is_softmax_minus_labels(loss, scale):
    logits = np.array([[1, -2, 0.5], [3, 3, -1]], np.float32) * np.float32(scale)
    gradient = exact(truth.gradient(loss), logits, LABELS)
    with mpmath.workdps(60):
        for row, labels, balls in zip(logits, LABELS, gradient.balls, strict=True):
            top = max(map(float, row))
            exps = [mpmath.exp(mpf(float(x)) - mpf(top)) for x in row]
            for ball, e, y in zip(balls, exps, labels, strict=True):
                want = e / mpmath.fsum(exps) - mpf(float(y))
                assert abs(as_mpf(ball) - want) <= mpf("1e-30") * (abs(want) if abs(want) > mpf(2) ** -1100 else 1)


def test_the_gradient_of_a_two_layer_net_agrees_with_its_closed_form():
    w, v, x = (np.float32(a) for a in (0.3, -1.7, 2.5))
    dw, dv = truth.of(jax.grad(lambda w, v: jnp.log1p(jnp.exp(v * jnp.tanh(w * x))), argnums=(0, 1)), w, v).at(w, v)
    with mpmath.workdps(60):
        w, v, x = (mpf(float(a)) for a in (w, v, x))
        hidden = mpmath.tanh(w * x)
        outer = 1 / (1 + mpmath.exp(-v * hidden))
        assert close(dw.balls[()], outer * v * (1 - hidden**2) * x)
        assert close(dv.balls[()], outer * hidden)


@pytest.mark.parametrize("x", [-1e12, -1e6, -200, -3, 0, 3, 200, 1e4, 1e6, 1e12])
def test_what_no_precision_holds_in_one_number_is_kept_beside_it(x):
    """log(1 - sigmoid(x)) is -softplus(x), also where the sigmoid is 1 to a hundred thousand million digits."""
    loss, slope = truth.of(jax.value_and_grad(lambda x: jnp.log(1 - jax.nn.sigmoid(x))), np.float32(x)).at(np.float32(x))
    with mpmath.workdps(60):
        x = mpf(float(np.float32(x)))
        softplus = max(x, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))
        for values, want in ((loss, -softplus), (slope, -1 / (1 + mpmath.exp(-x)))):
            assert close(values.balls[()], want) or (abs(want) < mpf(2) ** -1200 and values.magnitude == 0)


@pytest.mark.parametrize(
    ("function", "want"),
    [
        (lambda x: jnp.log(-jnp.log(jnp.exp(x) / (jnp.exp(x) + 1))), lambda x: -x),
        (lambda x: jnp.log(1 - jnp.tanh(x) ** 2), lambda x: mpmath.log(4) - 2 * x - 2 * mpmath.log1p(mpmath.exp(-2 * x))),
        (lambda x: jnp.log((1 + jnp.exp(-x)) - 1), lambda x: -x),
        (lambda x: jnp.log(jnp.log(1 + jnp.exp(-x))), lambda x: -x),
        (lambda x: jnp.log(1 - jnp.exp(-jnp.exp(-x))), lambda x: -x),
        (lambda x: jnp.log(1 - (jnp.exp(x) / (jnp.exp(x) + 1))), lambda x: -x - mpmath.log1p(mpmath.exp(-x))),
        (lambda x: jnp.log(jnp.sqrt(1 + jnp.exp(-x)) - 1), lambda x: -x - mpmath.log(2)),
        (lambda x: jnp.log(1 - 1 / (1 + jnp.exp(-x))), lambda x: -x - mpmath.log1p(mpmath.exp(-x))),
        (lambda x: jnp.log((1 + jnp.exp(-x)) ** 3 - 1), lambda x: -x + mpmath.log(3)),
        (lambda x: jnp.log(jnp.log1p(jnp.exp(x)) - x), lambda x: -x),
        (lambda x: jnp.log(1 + lax.erf(-jnp.sqrt(x))), lambda x: mpmath.log(mpmath.erfc(mpmath.sqrt(x)))),
    ],
    ids=range(11),
)
def test_logs_of_what_is_left_after_one_is_taken_away(function, want):
    for x in (1000.0, 1e5, 3e7):
        with mpmath.workdps(60):
            assert close(exact(function, x).balls[()], want(mpf(x)))


def test_precision_is_raised_where_a_cancellation_asks_for_it():
    small = np.float32(1e-30)
    assert exact(lambda x: (1 + x - 1) / x, small).rounded(np.float32) == 1
    assert exact(lambda x: ((x + 1e30) - 1e30) / x, small).balls[()] == 1
    cancelled = exact(lambda x: jnp.exp(x) - jnp.exp(x + 1e-38) + 1e-38 * jnp.exp(x), 0.0)
    with mpmath.workdps(150):
        tiny = mpf(float(np.float32(1e-38)))
        assert close(cancelled.balls[()], mpmath.exp(0) - mpmath.exp(tiny) + tiny)


def test_sums_are_exact_rationals():
    x = np.array([1e30, 1, -1e30, 1e-30, 3e38, -3e38], np.float32)
    mean_square = exact(lambda x: jnp.mean(x * x) - jnp.mean(x) ** 2, x)
    numbers = [Fraction(float(v)) for v in x]
    sixth = Fraction(float(np.float32(6)))
    want = sum(v * v for v in numbers) / sixth - (sum(numbers) / sixth) ** 2
    assert exact(jnp.sum, x).rounded(np.float64) == float(sum(numbers))
    with mpmath.workdps(120):
        assert close(mean_square.balls[()], mpf(want.numerator) / want.denominator)


def test_equal_numbers_are_equal_however_they_came_about():
    x = np.array([0.1, 0.1, 0.3], np.float32)
    assert exact(lambda x: jnp.exp(x).max() - jnp.exp(x)[0] * jnp.exp(x[2] - x[1]), x).balls[()] == 0
    np.testing.assert_array_equal(exact(jax.grad(lambda x: jnp.max(jnp.exp(x[:2] * 0 + 1) - 1)), x).rounded(np.float32), [0, 0, 0])
    assert exact(lambda x: jnp.sign(jnp.log(jnp.exp(x)) - x), 0.1).balls[()] == 0
    assert exact(lambda x: jnp.floor(jnp.exp(jnp.log(x))), 3.0).balls[()] == 3
    assert exact(lambda x: jnp.sqrt(jnp.sin(x) ** 2 + jnp.cos(x) ** 2 - 1), 0.7).balls[()] == 0


@pytest.mark.parametrize(
    ("function", "at", "want"),
    [
        (jnp.log, 0, -np.inf),
        (jnp.log, -1, np.nan),
        (jnp.log1p, -1, -np.inf),
        (jnp.sqrt, -1, np.nan),
        (lax.rsqrt, 0, np.inf),
        (lambda x: 1 / x, 0, np.inf),
        (lambda x: -1 / x, 0, -np.inf),
        (lambda x: x / x, 0, np.nan),
        (lambda x: x * jnp.log(x), 0, np.nan),
        (lambda x: jnp.exp(jnp.log(x)), 0, 0),
        (lambda x: jnp.log(x) - jnp.log(x), 0, np.nan),
        (lambda x: jnp.maximum(x, jnp.log(x - 1)), 0, np.nan),
        (lambda x: jnp.where(x > 0, jnp.log(x), 7.0), 0, 7),
        (lambda x: jax.nn.logsumexp(jnp.stack([x, -jnp.inf, x])), 0, np.log(2)),
        (lambda x: x**-0.5, 0, np.inf),
        (lambda x: x**0.0, 0, 1),
        (lambda x: lax.pow(x, x), np.inf, np.inf),
        (lambda x: lax.pow(jnp.float32(0.5), x), np.inf, 0),
        (lambda x: lax.atan2(x, x), np.inf, np.pi / 4),
        (lax.atanh, 1, np.inf),
        (lax.lgamma, -2, np.inf),
        (lax.digamma, -2, np.nan),
        (jnp.tanh, -np.inf, -1),
        (jnp.sin, np.inf, np.nan),
        (lambda x: x - x, np.inf, np.nan),
        (lambda x: jnp.floor(x) + lax.sign(x), -np.inf, -np.inf),
        (lambda x: x + 1, np.nan, np.nan),
    ],
    ids=range(27),
)
def test_singular_points_are_as_in_the_formula(function, at, want):
    values = exact(function, at)
    np.testing.assert_array_equal(values.rounded(np.float64), want)
    assert (values.defined, values.infinite) == (np.isfinite(want), np.sign(want) if np.isinf(want) else 0)


def test_an_exponential_neither_overflows_nor_underflows():
    x = np.array([-3e38, -1e6, 1e6, 3e38], np.float32)
    np.testing.assert_allclose(exact(lambda x: jnp.log(jnp.exp(x)), x).rounded(np.float32), x, rtol=0)
    np.testing.assert_array_equal(exact(jnp.exp, x).rounded(np.float32), [0, 0, np.inf, np.inf])
    assert exact(jnp.exp, x).defined.all()


def test_what_all_the_bits_there_are_do_not_decide_is_not_claimed():
    """exp(1e4) is known to some 2,460 digits only, of 4,343; so its exponential is not known at all."""
    assert not exact(lambda x: jnp.exp(jnp.exp(x)), 1e4).defined
    assert exact(lambda x: jnp.exp(-jnp.exp(x)), 1e4).balls[()] == 0
    undecided = exact(lambda x: jnp.log(jnp.exp(-jnp.exp(x))), 1e4)
    assert not undecided.defined and undecided.infinite == 0


def test_casts_do_not_round():
    assert exact(lambda x: (x.astype(jnp.bfloat16) * 3).astype(jnp.float16).astype(jnp.float32), 1.001).balls[()] == ball_of(1.001) * 3


def ball_of(x):
    """A float32 as the ball that it is."""
    return exact(lambda x: x, x).balls[()]


def loop_of(x):
    return lax.while_loop(lambda s: s[1] < 100, lambda s: (s[0] + 1, s[1] * 1.5 + x), (0, x))[0]


def test_loops_and_branches_go_the_way_of_the_exact_values():
    assert exact(loop_of, 0.5).balls[()] == int(jax.jit(loop_of)(0.5))
    # float32 would take the other branch: in it 1e8 + 1 is 1e8.
    assert exact(lambda x: lax.cond((x + 1) - x > 0.5, lambda: 1.0, lambda: 2.0), 1e8).balls[()] == 1
    harmonic = exact(lambda x: lax.fori_loop(1, 200, lambda i, s: s + 1 / jnp.float32(i), x), 0.0)
    want = sum(Fraction(1, i) for i in range(1, 200))
    with mpmath.workdps(60):
        assert close(harmonic.balls[()], mpf(want.numerator) / want.denominator)


def test_a_loop_that_only_rounding_ends_is_said_to_be_one(monkeypatch):
    monkeypatch.setattr("nandetect.truth.evaluate.MOST_ITERATIONS", 1000)
    with pytest.raises(UsageError, match="has not ended"):
        exact(lambda x: lax.while_loop(lambda s: s + 1 > s, lambda s: s, x), 1.0)


def test_the_derivative_by_differences_is_there_where_the_formula_is_nothing_times_infinity():
    def norm(x):
        return jnp.sum(jnp.sqrt(x * x) ** 2)

    x = np.array([0, 3], np.float32)
    assert np.isnan(exact(truth.gradient(norm), x).rounded(np.float32)[0])
    np.testing.assert_array_equal(truth.derivative_at(truth.of(norm, x), (x,)).rounded(np.float32), [0, 6])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_derivative_by_differences_agrees_with_the_formula(dtype):
    with widths.double():
        logits, labels = np.array([[1, -2, 0.1], [3, 3, -1]], dtype), LABELS.astype(dtype)
        by_formula = truth.of(truth.gradient(naive), logits, labels).at(logits, labels)[0]
        by_differences = truth.derivative_at(truth.of(naive, logits, labels), (logits, labels))
    assert by_formula.distance(by_differences.balls).max() < 1e-30
    assert by_differences.balls[0, 0].rel_accuracy_bits() > 100


@pytest.mark.parametrize("function", [jax.nn.relu, jnp.abs, jnp.sqrt, jnp.cbrt, lambda x: 1 / x], ids=range(5))
def test_a_kink_or_an_edge_has_no_derivative(function):
    zero = np.float32(0)
    assert not truth.derivative_at(truth.of(function, zero), (zero,)).defined


def test_derivatives_by_differences_of_smooth_functions_at_zero():
    for function, want in ((jnp.sin, 1), (jnp.square, 0), (jnp.cos, 0), (jnp.exp, 1), (lambda x: x**3, 0), (lambda x: x * 2.5, 2.5)):
        assert truth.derivative_at(truth.of(function, np.float32(0)), (np.float32(0),)).rounded(np.float32) == want


def test_arguments_that_do_not_fit_are_refused():
    function = truth.of(stable, np.zeros((2, 3), np.float32), LABELS)
    with pytest.raises(UsageError, match=r"traced on arguments of shapes \[\(2, 3\), \(2, 3\)\], not \[\(4, 3\), \(2, 3\)\]"):
        function.at(np.zeros((4, 3), np.float32), LABELS)
    with pytest.raises(UsageError, match="array of shape"):
        truth.derivative_at(truth.of(jnp.exp, LABELS), (LABELS,))


def test_a_value_and_gradient_takes_well_under_fifty_milliseconds():
    logits = np.random.default_rng(0).normal(size=(8, 10)).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[np.arange(8)]
    function = truth.of(jax.value_and_grad(stable), logits, labels)
    took = []
    for _ in range(5):
        start = time.process_time()
        function.at(logits, labels)
        took.append(time.process_time() - start)
    assert min(took) < 0.05
