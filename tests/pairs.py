"""Losses as users write them, each in a naive and a stable form, so that for every pair it is known which form breaks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

# Softmax cross-entropy.


def cross_entropy_naive(logits, labels):
    exps = jnp.exp(logits)
    return -jnp.mean(jnp.sum(labels * jnp.log(exps / jnp.sum(exps, axis=-1, keepdims=True)), axis=-1))


def cross_entropy_stable(logits, labels):
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


# Binary cross-entropy of a sigmoid.


def bce_naive(logits, labels):
    p = jax.nn.sigmoid(logits)
    return -jnp.mean(labels * jnp.log(p) + (1 - labels) * jnp.log(1 - p))


def bce_stable(logits, labels):
    return jnp.mean(jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits))))


# The logarithm of a sum of exponentials.


def logsumexp_naive(x):
    return jnp.mean(jnp.log(jnp.sum(jnp.exp(x), axis=-1)))


def logsumexp_stable(x):
    return jnp.mean(logsumexp(x, axis=-1))


# Softplus.


def softplus_naive(x):
    return jnp.mean(jnp.log(1 + jnp.exp(x)))


def softplus_stable(x):
    return jnp.mean(jnp.logaddexp(x, 0.0))


# Kullback-Leibler divergence of two softmaxes.


def kl_naive(logits, teacher_logits):
    p, q = jax.nn.softmax(teacher_logits), jax.nn.softmax(logits)
    return jnp.mean(jnp.sum(p * jnp.log(p / q), axis=-1))


def kl_stable(logits, teacher_logits):
    log_p, log_q = jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(logits)
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))


# Gaussian negative log-likelihood.


def gaussian_naive(mu, log_sigma, y):
    variance = jnp.exp(log_sigma) ** 2
    return jnp.mean(0.5 * jnp.log(variance) + (y - mu) ** 2 / (2 * variance))


def gaussian_stable(mu, log_sigma, y):
    return jnp.mean(log_sigma + 0.5 * ((y - mu) * jnp.exp(-log_sigma)) ** 2)


# Cosine distance of rows, where one may be zero.


def cosine_naive(a, b):
    return jnp.mean(1 - jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)))


def _unit(a):
    square = jnp.sum(a * a, -1, keepdims=True)
    return jnp.where(square > 0, a * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def cosine_stable(a, b):
    return jnp.mean(1 - jnp.sum(_unit(a) * _unit(b), -1))


# Huber's loss, with the absolute value taken as a root.


def huber_naive(pred, target):
    r = jnp.sqrt((pred - target) ** 2)
    return jnp.mean(jnp.where(r < 1, 0.5 * r**2, r - 0.5))


def huber_stable(pred, target):
    r = jnp.abs(pred - target)
    small = jnp.minimum(r, 1.0)
    return jnp.mean(0.5 * small**2 + (r - small))


# Focal loss.


def focal_naive(logits, labels):
    p = jnp.sum(labels * jax.nn.softmax(logits), axis=-1)
    return -jnp.mean((1 - p) ** 2 * jnp.log(p))


def focal_stable(logits, labels):
    log_p = jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)
    return -jnp.mean((1 - jnp.exp(log_p)) ** 2 * log_p)


# Triplet loss on distances.


def triplet_naive(anchor, positive, negative):
    near = jnp.sqrt(jnp.sum((anchor - positive) ** 2, -1))
    far = jnp.sqrt(jnp.sum((anchor - negative) ** 2, -1))
    return jnp.mean(jnp.maximum(near - far + 1.0, 0.0))


def _distance(a, b):
    square = jnp.sum((a - b) ** 2, -1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def triplet_stable(anchor, positive, negative):
    return jnp.mean(jnp.maximum(_distance(anchor, positive) - _distance(anchor, negative) + 1.0, 0.0))


# Variance.


def variance_naive(x):
    return jnp.mean(x**2) - jnp.mean(x) ** 2


def variance_stable(x):
    return jnp.mean((x - jnp.mean(x)) ** 2)


# Poisson negative log-likelihood.


def poisson_naive(log_rate, counts):
    rate = jnp.exp(log_rate)
    return jnp.mean(rate - counts * jnp.log(rate) + gammaln(counts + 1))


def poisson_stable(log_rate, counts):
    return jnp.mean(jnp.exp(log_rate) - counts * log_rate + gammaln(counts + 1))


NAIVE_AND_STABLE = {
    "softmax cross-entropy": (cross_entropy_naive, cross_entropy_stable),
    "sigmoid BCE": (bce_naive, bce_stable),
    "log-sum-exp": (logsumexp_naive, logsumexp_stable),
    "softplus": (softplus_naive, softplus_stable),
    "KL of two softmaxes": (kl_naive, kl_stable),
    "Gaussian NLL": (gaussian_naive, gaussian_stable),
    "cosine distance": (cosine_naive, cosine_stable),
    "Huber": (huber_naive, huber_stable),
    "focal": (focal_naive, focal_stable),
    "triplet": (triplet_naive, triplet_stable),
    "variance": (variance_naive, variance_stable),
    "Poisson NLL": (poisson_naive, poisson_stable),
}

# The same sound computation in another order.

BOTH_SOUND = {
    "cross-entropy, labels first": (
        cross_entropy_stable,
        lambda logits, labels: jnp.mean(logsumexp(logits, axis=-1) * jnp.sum(labels, -1) - jnp.sum(labels * logits, axis=-1)),
    ),
    "cross-entropy, whole sum over rows": (
        cross_entropy_stable,
        lambda logits, labels: -jnp.sum(labels * jax.nn.log_softmax(logits)) / logits.shape[0],
    ),
    "BCE by softplus": (bce_stable, lambda logits, labels: jnp.mean(jax.nn.softplus(logits) - logits * labels)),
    "mean square, transposed": (
        lambda pred, target: jnp.mean((pred - target) ** 2),
        lambda pred, target: jnp.mean(jnp.mean((target.T - pred.T) ** 2, axis=0)),
    ),
    "variance of shifted numbers": (variance_stable, lambda x: jnp.var(x)),
    "Gaussian NLL, halves last": (
        gaussian_stable,
        lambda mu, log_sigma, y: 0.5 * jnp.mean(2 * log_sigma + ((mu - y) / jnp.exp(log_sigma)) ** 2),
    ),
}

# Ten times the other.
FACTOR = (cross_entropy_stable, lambda logits, labels: -10 * jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)))
