"""A multi-layer perceptron in plain JAX: `init`, `apply`, and three ways of writing the same cross-entropy.

Copy this file, change it, and hand it to `nandetect train --model FILE.py`. A model file has `init(key, sizes, scheme)` and
`apply(params, inputs)`. Two tables may stand beside them: `LOSSES`, of `loss(logits, labels)` with one-hot labels (without it the
three below are used), and `INITS`, whose keys are the schemes that `init` can be asked for (without it, `init(key, sizes)` is called).
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

# The standard deviation of a weight, by scheme, for a layer of m inputs and n outputs.
INITS = {
    "he": lambda m, n: (2 / m) ** 0.5,
    # He's formula as it is often remembered: far too small in wide layers.
    "he-wrong": lambda m, n: 2 / (m * n) ** 0.5,
    "glorot": lambda m, n: (2 / (m + n)) ** 0.5,
    "lecun": lambda m, n: (1 / m) ** 0.5,
    "unit": lambda m, n: 1.0,
}


def init(key, sizes, scheme="he"):
    """Weights drawn from a normal distribution and zero biases, for layers of the given sizes (inputs first, classes last)."""
    params = {}
    for layer in range(1, len(sizes)):
        m, n = sizes[layer - 1], sizes[layer]
        key, key_layer = jax.random.split(key)
        params[f"w{layer}"] = jax.random.normal(key_layer, (m, n)) * INITS[scheme](m, n)
        params[f"b{layer}"] = jnp.zeros(n)
    return params


def apply(params, inputs):
    """Logits for a batch of flat inputs: ReLU between the layers, none after the last."""
    layers = len(params) // 2
    x = inputs
    for layer in range(1, layers):
        x = jax.nn.relu(x @ params[f"w{layer}"] + params[f"b{layer}"])
    return x @ params[f"w{layers}"] + params[f"b{layers}"]


def naive_loss(logits, labels):
    """Cross-entropy as the textbook writes it."""
    probs = jax.nn.softmax(logits)
    return -jnp.mean(jnp.sum(labels * jnp.log(probs), axis=-1))


def xlogy_loss(logits, labels):
    """The same with 0 * log(0) taken as 0."""
    probs = jax.nn.softmax(logits)
    return -jnp.mean(jnp.sum(xlogy(labels, probs), axis=-1))


def stable_loss(logits, labels):
    """The same from the logits: the logarithm of the softmax, never the softmax itself."""
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


LOSSES = {"naive": naive_loss, "xlogy": xlogy_loss, "stable": stable_loss}
