"""models/mlp.py: three ways of writing one cross-entropy, and where each of them breaks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect.targets import model_file

MLP = model_file.load("mlp")
LABELS = jnp.eye(3)[jnp.array([0, 1])]
# Once logits differ by more than about 104 (88 where small numbers are flushed to zero), the smaller one's softmax is 0 in float32.
APART = jnp.array([[200.0, 0.0, 1.0], [0.0, 300.0, 250.0]])


def cross_entropy(logits, labels):
    """In float64, by the definition."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -(labels * log_probs).sum(-1).mean()


@pytest.mark.parametrize("name", ["naive", "xlogy", "stable"])
def test_each_loss_is_the_cross_entropy_of_ordinary_logits(name):
    logits = jax.random.normal(jax.random.key(0), (2, 3))
    np.testing.assert_allclose(MLP.losses[name](logits, LABELS), cross_entropy(logits, LABELS), rtol=1e-6)


def test_the_naive_loss_breaks_forward():
    assert np.isnan(MLP.losses["naive"](APART, LABELS))


def test_the_xlogy_loss_stays_finite_and_breaks_in_its_gradient():
    value, gradient = jax.value_and_grad(MLP.losses["xlogy"])(APART, LABELS)
    np.testing.assert_allclose(value, cross_entropy(APART, LABELS), atol=1e-6)
    assert np.isnan(gradient).any()


def test_the_stable_loss_and_its_gradient_hold_far_apart():
    wrong = jnp.array([[0.0, 200.0, 1.0], [0.0, 300.0, 250.0]])
    value, gradient = jax.value_and_grad(MLP.losses["stable"])(wrong, LABELS)
    np.testing.assert_allclose(value, cross_entropy(wrong, LABELS), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("scheme", "deviation"),
    [
        ("he", np.sqrt(2 / 400)),
        ("he-wrong", 2 / np.sqrt(400 * 100)),
        ("glorot", np.sqrt(2 / 500)),
        ("lecun", np.sqrt(1 / 400)),
        ("unit", 1.0),
    ],
)
def test_a_scheme_draws_weights_of_its_deviation(scheme, deviation):
    params = MLP.init(jax.random.key(0), (400, 100), scheme)
    assert np.std(params["w1"]) == pytest.approx(deviation, rel=0.02)
    assert not params["b1"].any()


def test_apply_is_affine_and_relu_in_turn():
    params = {"w1": jnp.array([[1.0, -1.0]]), "b1": jnp.array([0.0, 0.5]), "w2": jnp.array([[2.0], [3.0]]), "b2": jnp.array([1.0])}
    np.testing.assert_allclose(MLP.apply(params, jnp.array([[2.0], [-2.0]])), [[5.0], [8.5]])
