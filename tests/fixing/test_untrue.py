"""Proofs that were untrue once: finite results that were another function's, or advice for what was not there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.fixing import prove

ROWS = jnp.array([[3.0, 4.0], [0.0, 0.0]])
X = jnp.array([0.0, 200.0, 1.0])
HALF = jnp.full(3000, 30, jnp.float16)


@pytest.fixture
def proven(monkeypatch):
    """A function that locates a fault and gives the fixes with what the step gave with each that was proven."""
    trials = prove.trials

    def ask(step, *args):
        tried = []

        def keeping(*given):
            for one in trials(*given):
                tried.append(one)
                yield one

        monkeypatch.setattr(prove, "trials", keeping)
        report = nd.locate(step, *args)
        assert report is not None
        return report.fixes, [one.program.call() for one in tried if one.is_proven]

    return ask


def codes(fixes):
    return {fix.code for fix in fixes}


@pytest.mark.parametrize(
    ("norm", "code", "slope"),
    [
        (lambda x: jnp.linalg.norm(x, axis=-1), "ND222", [[0.6, 0.8], [0.0, 0.0]]),
        (lambda x: jnp.sqrt((x * x).sum(-1)), "ND222", [[0.6, 0.8], [0.0, 0.0]]),
        (lambda x: jnp.std(x, axis=-1), "ND223", [[-0.5, 0.5], [0.0, 0.0]]),
    ],
)
def test_of_rows_of_which_one_is_zero_the_others_keep_their_slope(proven, norm, code, slope):
    fixes, results = proven(jax.grad(lambda x: norm(x).sum()), ROWS)
    assert [(fix.code, fix.proven) for fix in fixes] == [(code, True)]
    np.testing.assert_allclose(results[0][0], slope, rtol=1e-6)


def test_a_root_below_zero_is_not_mended_by_a_bound_at_which_its_slope_is_infinite(proven):
    fixes, results = proven(jax.value_and_grad(lambda x: 1 + 1e-5 * jnp.sqrt(1 - x * x)), jnp.float32(1.0000002))
    assert codes(fixes) == {"ND225"}
    slope = jax.grad(lambda x: eval(fixes[0].after, {"jnp": jnp, "x": x}))(jnp.float32(1.0000002))
    assert np.isfinite(slope)
    assert all(np.isfinite(np.asarray(results)).all() for results in results)


@pytest.mark.parametrize(
    "step",
    [
        lambda x: jnp.exp(x) / jnp.exp(x).sum(),
        lambda x: jnp.log(1 + jnp.exp(x)),
        lambda x: jnp.log(jnp.cosh(x)),
        lambda x: jnp.log(jnp.exp(x) + jnp.exp(-x)).sum(),
    ],
)
def test_an_exponent_is_not_bounded_inside_what_has_a_stable_form(proven, step):
    fixes, results = proven(step, X)
    assert fixes and all(fix.proven for fix in fixes)
    assert "ND253" not in codes(fixes)
    # Bounded at 80, softplus and log cosh of 200 were 80.
    if results[0][0].size == 3 and step(X / 100)[1] > 1:
        assert float(results[0][0][1]) > 199


def test_what_is_right_for_real_numbers_is_not_said_of_complex_ones(proven):
    fixes, results = proven(lambda z: jnp.log(jnp.cosh(z)), jnp.array([200.0 + 1.0j, 1.0 + 2.0j], jnp.complex64))
    truth = np.array([200 + 1j - np.log(2), np.log(np.cosh(1 + 2j))])
    assert not any("jnp.abs" in fix.after for fix in fixes)
    for result in results:
        np.testing.assert_allclose(np.exp(1j * np.imag(result[0])), np.exp(1j * np.imag(truth)), atol=1e-5)
        np.testing.assert_allclose(np.real(result[0]), np.real(truth), rtol=1e-5)


def test_a_difference_of_log_probabilities_is_no_softmax_of_a_masked_row(proven):
    legal = jnp.array([True, False, True])

    def step(a, b):
        p, q = (jax.nn.log_softmax(jnp.where(legal, x, -jnp.inf)) for x in (a, b))
        return jnp.exp(p - q).sum()

    fixes, _ = proven(step, X / 100, X / 50)
    assert "ND261" not in codes(fixes)
    assert not any(fix.proven for fix in fixes)


@pytest.mark.parametrize("step", [lambda x: x.sum(), lambda x: x @ x, lambda x: jnp.mean(x) * 2e4])
def test_a_cast_that_nobody_wrote_is_not_advised_against(proven, step):
    fixes, _ = proven(step, HALF)
    assert "ND251" not in codes(fixes) and not any("astype(jnp.float16)" in fix.after for fix in fixes)


@pytest.mark.parametrize("matrix", [[[1.0, 5.0], [5.0, 1.0]], [[-4.0, 0.0], [0.0, 1.0]], [[1.0, 1.1], [1.1, 1.0]]])
def test_a_matrix_that_is_plainly_indefinite_has_no_jitter_that_mends_it(proven, matrix):
    fixes, _ = proven(jnp.linalg.cholesky, jnp.array(matrix))
    assert not any(fix.proven for fix in fixes)
    assert not any("1e-05" in fix.after for fix in fixes)


def test_normalising_a_zero_vector_gives_no_enormous_slope(proven):
    def step(x):
        return (x / jnp.linalg.norm(x, axis=-1, keepdims=True)).sum()

    fixes, results = proven(jax.grad(step), ROWS)
    assert fixes and all(np.abs(np.asarray(result[0])).max() < 10 for result in results)
    whole = {"jnp": jnp, "jax": jax}
    for fix in fixes:
        slope = jax.grad(lambda x, fix=fix: jnp.sum(eval(fix.after, {**whole, "x": x})))(ROWS[1])
        assert np.abs(slope).max() < 10


def test_a_bound_that_is_finite_and_another_function_is_not_proven(proven):
    # The truth is 59.4; with the logarithm of what underflowed bounded it is 43.2.
    fixes, results = proven(lambda a: (lambda r: 0.5 * (r - 1 - jnp.log(r)))(a * a), jnp.float32(1e-26))
    assert any(fix.proven for fix in fixes)
    for result in results:
        np.testing.assert_allclose(result[0], -0.5 * (1 + 2 * np.log(1e-26)), rtol=1e-6)
    # The truth is inf.
    fixes, results = proven(lambda x: (0.5 - 1) * jnp.log(x), jnp.float32(0))
    assert not any(fix.proven for fix in fixes)
