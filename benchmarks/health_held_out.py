"""Training runs that no threshold was tuned on: other architectures, widths, rates, optimizers, data and seeds than `health_cases.py`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from health_cases import _autoencoder, _class_of_last, _sick, _warm, spiked
from health_models import (
    GELU,
    SIGMOID,
    TANH,
    Model,
    Task,
    cnn,
    digits,
    markov,
    mlp,
    recall,
    rnn,
    transformer,
    waves,
)
from health_runs import Case

sgd, momentum, adam, adamw, rmsprop, lion = optax.sgd, partial(optax.sgd, momentum=0.95), optax.adam, optax.adamw, optax.rmsprop, optax.lion
_LEAKY = partial(jax.nn.leaky_relu, negative_slope=0.05)


def gru(inputs: int, hidden: int, classes: int) -> Model:
    """A gated recurrent unit in a flat dictionary."""

    def init(key: Any) -> Any:
        keys = jax.random.split(key, 3)
        return {
            "w_in": jax.random.normal(keys[0], (inputs, 3 * hidden)) / math.sqrt(inputs),
            "w_rec": jax.nn.initializers.orthogonal()(keys[1], (hidden, 3 * hidden)),
            "b_rec": jnp.zeros(3 * hidden),
            "w_out": jax.random.normal(keys[2], (hidden, classes)) / math.sqrt(hidden),
            "b_out": jnp.zeros(classes),
        }

    def apply(params: Any, x: Any, key: Any) -> Any:
        x = x.reshape(x.shape[0], -1, inputs)

        def step(h: Any, now: Any) -> tuple[Any, None]:
            r, z, n = jnp.split(now @ params["w_in"] + params["b_rec"], 3, -1)
            hr, hz, hn = jnp.split(h @ params["w_rec"], 3, -1)
            z = jax.nn.sigmoid(z + hz)
            return (1 - z) * h + z * jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn), None

        h, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], hidden)), x.swapaxes(0, 1))
        return h @ params["w_out"] + params["b_out"]

    return Model(init, apply)


def torch_like(sizes: tuple[int, ...], act: Any = GELU, gain: float = 1.0, bias: float = 0.0) -> Model:
    """Kernels as (out, in), uniform in +-1/sqrt(in), as torch and equinox draw them."""

    def init(key: Any) -> Any:
        layers = []
        for m, n, k in zip(sizes[:-1], sizes[1:], jax.random.split(key, len(sizes) - 1), strict=True):
            bound = gain / math.sqrt(m)
            layers.append({"weight": jax.random.uniform(k, (n, m), minval=-bound, maxval=bound), "bias": jnp.full(n, bias)})
        return layers

    def apply(params: Any, x: Any, key: Any) -> Any:
        x = x.reshape(x.shape[0], -1)
        for i, layer in enumerate(params):
            x = x @ layer["weight"].T + layer["bias"]
            x = act(x) if i < len(params) - 1 else x
        return x

    return Model(init, apply)


def resnet(channels: int = 12, blocks: int = 3, scheme: float = 1.0) -> Model:
    """Residual convolutions with a normalisation over the batch, and mean pooling."""

    def init(key: Any) -> Any:
        keys = iter(jax.random.split(key, 2 + 2 * blocks))

        def conv(m: int, n: int) -> Any:
            return {"kernel": jax.random.normal(next(keys), (3, 3, m, n)) * math.sqrt(2 / (9 * m)) * scheme}

        def norm() -> Any:
            return {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}

        params: dict[str, Any] = {"stem": conv(1, channels)}
        for i in range(blocks):
            params[f"block_{i}"] = {"conv_0": conv(channels, channels), "bn_0": norm(), "conv_1": conv(channels, channels), "bn_1": norm()}
        params["classifier"] = {"kernel": jax.random.normal(next(keys), (channels, 10)) / math.sqrt(channels), "bias": jnp.zeros(10)}
        return params

    def conv(layer: Any, x: Any) -> Any:
        return jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def norm(layer: Any, x: Any) -> Any:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return layer["scale"] * (x - mean) * jax.lax.rsqrt(var + 1e-5) + layer["bias"]

    def apply(params: Any, x: Any, key: Any) -> Any:
        side = round(math.sqrt(x.shape[1]))
        x = conv(params["stem"], x.reshape(-1, side, side, 1))
        for i in range(blocks):
            block = params[f"block_{i}"]
            y = jax.nn.relu(norm(block["bn_0"], conv(block["conv_0"], x)))
            x = jax.nn.relu(x + norm(block["bn_1"], conv(block["conv_1"], y)))
        return x.mean((1, 2)) @ params["classifier"]["kernel"] + params["classifier"]["bias"]

    return Model(init, apply)


def two_players(size: int = 16) -> Model:
    """A generator and a discriminator in one tree."""
    g, d = mlp((8, 32, 2)), mlp((2, 32, 32, 1))

    def init(key: Any) -> Any:
        one, two = jax.random.split(key)
        return {"generator": g.init(one), "discriminator": d.init(two)}

    def apply(params: Any, x: Any, key: Any) -> Any:
        return g.apply(params["generator"], x, key), d.apply

    return Model(init, apply)


def _gan(apply: Any, params: Any, x: Any, y: Any, key: Any) -> Any:
    """Both losses in one: each player's gradient flows into its own parameters only."""
    noise = jax.random.normal(key, (x.shape[0], 8))
    fake, judge = apply(params, noise, key)
    stop = jax.lax.stop_gradient

    def score(who: Any, points: Any) -> Any:
        return judge(who, points, key)[:, 0]

    d_loss = jnp.mean(jax.nn.softplus(-score(params["discriminator"], x)) + jax.nn.softplus(score(params["discriminator"], stop(fake))))
    return d_loss + jnp.mean(jax.nn.softplus(-score(stop(params["discriminator"]), fake)))


def ring(seed: int = 0) -> Task:
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, 1000)
    return Task(np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), np.zeros(1000, np.int32))


def parity(seed: int = 0) -> Task:
    """Three bits of ten: nothing is learned for a while, then all."""
    bits = np.random.default_rng(seed).integers(0, 2, (2000, 10))
    return Task((2.0 * bits - 1).astype(np.float32), (bits[:, :3].sum(1) % 2).astype(np.int32))


_S = (64, 96, 96, 48, 10)
HEALTHY = [
    Case("h-mlp-rmsprop", partial(mlp, _S), digits, partial(rmsprop, 5e-4), seed=101),
    Case("h-mlp-lion", partial(mlp, _S), digits, partial(lion, 1e-4), seed=102, steps=500),
    Case("h-mlp-wide", partial(mlp, (64, 512, 10)), digits, partial(sgd, 0.05), seed=103),
    Case("h-mlp-leaky", partial(mlp, (64, 50, 50, 10), _LEAKY), partial(digits, "unit"), partial(momentum, 0.02), seed=104),
    Case("h-mlp-deep-gelu", partial(mlp, (64, *[80] * 12, 10), GELU), digits, partial(adam, 5e-4), seed=105),
    Case("h-torch-like", partial(torch_like, (64, 100, 50, 10)), digits, partial(adam, 1e-3), seed=106, steps=500),
    Case(
        "h-torch-relu-batch-2",
        partial(torch_like, (64, 100, 50, 10), jax.nn.relu),
        partial(digits, "unit"),
        partial(sgd, 0.02),
        seed=107,
        batch=2,
        steps=2000,
    ),
    Case("h-resnet", resnet, digits, partial(adam, 2e-3), seed=108, steps=300),
    Case("h-resnet-sgd", resnet, digits, lambda: optax.chain(optax.add_decayed_weights(1e-3), momentum(0.02)), seed=109, steps=300),
    Case("h-gru", partial(gru, 8, 40, 10), digits, partial(adam, 2e-3), seed=110),
    Case("h-gru-long", partial(gru, 2, 32, 10), digits, partial(adam, 5e-3), seed=111, steps=500),
    Case("h-parity-plateau", partial(mlp, (10, 64, 2)), parity, partial(sgd, 0.1), seed=112, steps=2000),
    Case("h-sigmoid-plateau", partial(mlp, (64, 100, 30, 10), SIGMOID, "glorot"), digits, partial(sgd, 0.5), seed=113, steps=1500),
    Case("h-tanh-deep", partial(mlp, (64, *[48] * 6, 10), TANH, "lecun"), digits, partial(momentum, 0.01), seed=114),
    Case("h-dropout-half", partial(mlp, (64, 256, 128, 10), dropout=0.5), digits, partial(adam, 1e-3), seed=115, steps=500),
    Case("h-noise-20", partial(mlp, (64, 200, 10)), partial(digits, noise=0.2), partial(momentum, 0.01), seed=116, steps=900),
    Case(
        "h-overfit",
        partial(torch_like, (64, 200, 100, 10)),
        partial(digits, samples=32),
        partial(adam, 2e-3),
        seed=117,
        batch=32,
        steps=1500,
    ),
    Case("h-fine-tune", cnn, digits, partial(adam, 1e-3), seed=118, absent="conv"),
    Case("h-batch-1", partial(cnn, channels=(6, 12)), digits, partial(sgd, 0.003), seed=119, batch=1, steps=2000),
    Case("h-bfloat16", partial(mlp, (64, 160, 80, 10)), digits, partial(sgd, 0.1), seed=120, dtype="bfloat16", steps=500),
    Case("h-regression-sgd", partial(mlp, (4, 100, 1)), waves, partial(sgd, 0.02), seed=121, steps=800),
    Case(
        "h-regression-tanh",
        partial(torch_like, (6, 48, 48, 1), TANH),
        partial(waves, features=6),
        partial(adam, 3e-3),
        seed=122,
        batch=8,
        steps=800,
    ),
    Case(
        "h-autoencoder",
        partial(mlp, (64, 48, 16, 48, 64), TANH, "glorot"),
        partial(digits, "unit"),
        partial(adam, 3e-3),
        seed=123,
        loss=_autoencoder,
        steps=600,
    ),
    Case("h-gan", two_players, ring, partial(optax.adam, 1e-3, b1=0.5), seed=124, loss=_gan, steps=1500, batch=64),
    Case("h-transformer-3", partial(transformer, 24, 20, 48, 4, 3), partial(markov, 24, 20), partial(adam, 5e-4), seed=125, steps=600),
    Case(
        "h-transformer-clip",
        partial(transformer, 12, 12, 24),
        partial(markov, 12, 12),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), adamw(_warm(5e-3, 500))),
        seed=126,
        steps=500,
    ),
    Case(
        "h-transformer-first",
        partial(transformer, 10, 12, causal=False),
        partial(recall, 10, 12),
        partial(adam, 2e-3),
        seed=127,
        loss=_class_of_last,
        steps=700,
    ),
    Case("h-rnn-first-plateau", partial(rnn, 6, 24, 6, tokens=True), partial(recall, 6, 12), partial(adam, 2e-3), seed=128, steps=1500),
    Case("h-rnn-relu", partial(rnn, 8, 40, 10, act=jax.nn.relu), digits, partial(adam, 1e-3), seed=129),
    Case("h-cnn-warm", partial(cnn, channels=(16, 32)), digits, lambda: momentum(_warm(0.05, 400)), seed=130),
    Case("h-full-batch", partial(mlp, (64, 64, 10)), partial(digits, samples=200), partial(sgd, 0.2), seed=131, batch=200, steps=500),
    Case("h-linear", partial(mlp, (64, 10)), digits, partial(sgd, 0.1), seed=132),
    Case("h-zero-head-sgd", partial(mlp, _S, zero_head=True), digits, partial(sgd, 0.1), seed=133, steps=500),
    Case("h-accumulate", partial(mlp, _S), digits, lambda: optax.MultiSteps(adam(2e-3), 4), seed=134, steps=1200),
    Case("h-skips-few", partial(mlp, _S), digits, partial(adam, 1e-3), seed=135, spoil=0.004, skip=True, steps=500),
]
HIGH, LOW = "learning-rate-high", "learning-rate-low"
SICK = [
    _sick("h-lr-high-wide-1", HIGH, partial(mlp, (64, 300, 10)), digits, partial(sgd, 30.0), seed=201),
    _sick("h-lr-high-deep-2", HIGH, partial(mlp, (64, *[50] * 5, 10)), digits, partial(adam, 0.2), seed=202),
    _sick("h-lr-high-torch-3", HIGH, partial(torch_like, (64, 100, 50, 10)), digits, partial(adam, 1.0), seed=203),
    _sick("h-lr-high-resnet-4", HIGH, resnet, digits, partial(adam, 1.0), seed=204, steps=200),
    _sick("h-lr-high-gru-5", HIGH, partial(gru, 8, 40, 10), digits, partial(adam, 1.0), seed=205),
    _sick("h-lr-high-transformer-6", HIGH, partial(transformer, 12, 12, 24), partial(markov, 12, 12), partial(adam, 0.5), seed=206),
    _sick("h-lr-high-regression-7", HIGH, partial(mlp, (4, 100, 1)), waves, partial(sgd, 5.0), seed=207),
    _sick("h-lr-high-momentum-8", HIGH, cnn, digits, partial(momentum, 1.0), seed=208),
    _sick(
        "h-lr-high-autoencoder-9",
        HIGH,
        partial(mlp, (64, 48, 16, 48, 64), TANH, "glorot"),
        digits,
        partial(adam, 1.0),
        seed=209,
        loss=_autoencoder,
    ),
    _sick("h-lr-low-torch-1", LOW, partial(torch_like, (64, 100, 50, 10)), digits, partial(adam, 1e-7), seed=211),
    _sick("h-lr-low-resnet-2", LOW, resnet, digits, partial(sgd, 1e-6), seed=212, steps=200),
    _sick("h-lr-low-gru-3", LOW, partial(gru, 8, 40, 10), digits, partial(adam, 3e-7), seed=213),
    _sick("h-lr-low-transformer-4", LOW, partial(transformer, 24, 20, 48, 4, 3), partial(markov, 24, 20), partial(adamw, 3e-7), seed=214),
    _sick("h-lr-low-regression-5", LOW, partial(mlp, (4, 100, 1)), waves, partial(sgd, 1e-6), seed=215),
    _sick("h-lr-low-mlp-6", LOW, partial(mlp, _S), digits, partial(momentum, 1e-6), seed=216),
    _sick("h-unscaled-wide-1", "inputs-unscaled", partial(mlp, (64, 300, 10)), partial(digits, "raw"), partial(adam, 1e-3), seed=221),
    _sick(
        "h-unscaled-torch-2",
        "inputs-unscaled",
        partial(torch_like, (64, 100, 50, 10)),
        partial(digits, "raw"),
        partial(sgd, 0.05),
        seed=222,
    ),
    _sick(
        "h-unscaled-gru-3",
        "inputs-unscaled saturated-units",
        partial(gru, 8, 40, 10),
        partial(digits, "raw"),
        partial(adam, 1e-3),
        seed=223,
    ),
    _sick(
        "h-unscaled-cnn-4", "inputs-unscaled", partial(cnn, channels=(16, 32)), partial(digits, "raw"), partial(momentum, 0.01), seed=224
    ),
    _sick(
        "h-unscaled-sigmoid-5",
        "inputs-unscaled saturated-units",
        partial(mlp, (64, 100, 100, 10), SIGMOID, "glorot"),
        partial(digits, "raw"),
        partial(adam, 1e-3),
        seed=225,
    ),
    _sick(
        "h-sigmoid-depth-1",
        "vanishing-gradient",
        partial(mlp, (64, *[100] * 7, 10), SIGMOID, "glorot"),
        digits,
        partial(adam, 3e-4),
        seed=231,
    ),
    _sick(
        "h-sigmoid-depth-2", "vanishing-gradient", partial(torch_like, (64, *[64] * 6, 10), SIGMOID), digits, partial(sgd, 0.1), seed=232
    ),
    _sick(
        "h-sigmoid-depth-3",
        "vanishing-gradient",
        partial(mlp, (64, *[40] * 12, 10), SIGMOID, "lecun"),
        digits,
        partial(momentum, 0.05),
        seed=233,
    ),
    _sick(
        "h-init-small-1",
        "init-scale vanishing-gradient",
        partial(mlp, (64, *[100] * 6, 10), scheme="no-sqrt"),
        digits,
        partial(momentum, 0.01),
        seed=241,
    ),
    _sick(
        "h-init-unit-2",
        "init-scale exploding-gradient",
        partial(mlp, (64, 200, 100, 10), scheme="unit"),
        digits,
        partial(adam, 1e-3),
        seed=242,
    ),
    _sick(
        "h-init-unit-cnn-3",
        "init-scale exploding-gradient",
        partial(cnn, channels=(16, 32), scheme="unit"),
        digits,
        partial(sgd, 0.01),
        seed=243,
    ),
    _sick("h-init-zeros-4", "init-symmetry", partial(mlp, (64, 100, 50, 10), TANH, "zeros"), digits, partial(adam, 1e-3), seed=244),
    _sick("h-init-fan-out-1", "init-scale", partial(mlp, (64, 300, 50, 10), scheme="fan-out"), digits, partial(adam, 5e-4), seed=245),
    _sick("h-init-swapped-1", "init-scale", partial(mlp, (64, 200, 30, 10), scheme="swapped"), digits, partial(momentum, 0.01), seed=246),
    _sick("h-init-lecun-1", "init-scale", partial(mlp, (64, *[100] * 6, 10), scheme="lecun"), digits, partial(momentum, 0.01), seed=247),
    _sick("h-init-truncated-1", "init-scale", partial(mlp, (64, 200, 100, 10), scheme="truncated"), digits, partial(adam, 1e-3), seed=248),
    _sick("h-init-doubled-1", "init-symmetry", partial(mlp, (64, 90, 70, 10), TANH, "doubled"), digits, partial(sgd, 0.1), seed=249),
    _sick("h-init-float16-1", "init-scale", partial(cnn, scheme="sunk"), digits, partial(adam, 1e-3), seed=250, dtype="float16"),
    _sick(
        "h-dead-torch-1",
        "dead-units",
        partial(torch_like, (64, 100, 50, 10), jax.nn.relu, bias=-4.0),
        digits,
        partial(adam, 1e-3),
        seed=251,
    ),
    _sick("h-dead-mlp-2", "dead-units", partial(mlp, _S, bias=-6.0), digits, partial(momentum, 0.02), seed=252),
    _sick(
        "h-dead-partly-3", "dead-units", partial(mlp, (64, 200, 100, 10), bias=-2.5), partial(digits, "unit"), partial(sgd, 0.05), seed=253
    ),
    _sick("h-exploding-rnn-1", "exploding-gradient", partial(rnn, 1, 40, 10, gain=3.0), digits, partial(sgd, 0.01), seed=261),
    _sick(
        "h-exploding-rnn-2", "exploding-gradient", partial(rnn, 2, 24, 10, gain=1.8, act=jax.nn.relu), digits, partial(adam, 1e-3), seed=262
    ),
    _sick(
        "h-exploding-rnn-3", "exploding-gradient", partial(rnn, 1, 32, 10, gain=1.3, act=lambda x: x), digits, partial(adam, 1e-3), seed=263
    ),
    _sick(
        "h-detached-torch-1", "frozen-parameters", partial(mlp, (64, 80, 80, 80, 10), GELU, detach=2), digits, partial(sgd, 0.1), seed=271
    ),
    _sick("h-detached-mlp-2", "frozen-parameters", partial(mlp, _S, detach=3), partial(digits, "unit"), partial(adamw, 1e-3), seed=272),
    _sick("h-frozen-resnet-1", "frozen-parameters", resnet, digits, partial(adam, 1e-3), seed=273, still="block_1.conv_0", steps=200),
    _sick("h-frozen-gru-2", "frozen-parameters", partial(gru, 8, 40, 10), digits, partial(adam, 1e-3), seed=274, still="w_rec"),
    _sick("h-frozen-torch-3", "frozen-parameters", partial(torch_like, (64, 100, 50, 10)), digits, partial(sgd, 0.1), seed=275, still="1."),
    _sick("h-shuffled-wide-1", "loss-at-chance", partial(mlp, (64, 300, 10)), partial(digits, shuffled=True), partial(sgd, 0.02), seed=281),
    _sick(
        "h-shuffled-torch-2",
        "loss-at-chance",
        partial(torch_like, (64, 100, 50, 10)),
        partial(digits, shuffled=True),
        partial(adam, 5e-4),
        seed=282,
        steps=600,
    ),
    _sick("h-shuffled-resnet-3", "loss-at-chance", resnet, partial(digits, shuffled=True), partial(adam, 1e-3), seed=283, steps=300),
    _sick("h-shuffled-gru-4", "loss-at-chance", partial(gru, 8, 40, 10), partial(digits, shuffled=True), partial(adam, 1e-3), seed=284),
    _sick(
        "h-shuffled-transformer-5",
        "loss-at-chance",
        partial(transformer, 24, 20, 48, 4, 3),
        partial(markov, 24, 20, shuffled=True),
        partial(adam, 5e-4),
        seed=285,
    ),
    _sick(
        "h-float16-overflow-1",
        "overflow-headroom non-finite skipped-steps",
        partial(mlp, (64, *[100] * 3, 10)),
        digits,
        partial(sgd, 0.05),
        seed=291,
        dtype="float16",
        scale=1e5,
    ),
    _sick(
        "h-float16-overflow-2",
        "overflow-headroom non-finite skipped-steps",
        partial(mlp, (64, 200, 100, 10)),
        digits,
        partial(adam, 1e-3),
        seed=292,
        dtype="float16",
        scale=2.0**17,
        skip=True,
    ),
    _sick(
        "h-float16-underflow-3",
        "underflow",
        partial(mlp, (64, 200, 100, 10)),
        digits,
        partial(sgd, 3e2),
        seed=293,
        dtype="float16",
        scale=3e-5,
        unscale=False,
    ),
    _sick(
        "h-float16-underflow-4",
        "underflow vanishing-gradient",
        partial(mlp, (64, *[64] * 7, 10), SIGMOID, "glorot"),
        digits,
        partial(sgd, 0.1),
        seed=294,
        dtype="float16",
    ),
    _sick("h-skipped-1", "skipped-steps", resnet, digits, partial(adam, 1e-3), seed=295, spoil=0.08, skip=True, steps=200),
    _sick(
        "h-skipped-2", "skipped-steps", partial(torch_like, (64, 100, 50, 10)), digits, partial(sgd, 0.1), seed=296, spoil=0.5, skip=True
    ),
]
SPIKED = [
    spiked("h-spikes-torch", partial(torch_like, (64, 100, 50, 10)), partial(digits, noise=0.2), partial(adam, 5e-4), seed=301),
    spiked(
        "h-spikes-mlp-momentum",
        partial(mlp, (64, 64, 64, 10), GELU),
        partial(digits, "unit", noise=0.3),
        partial(optax.sgd, 0.02, momentum=0.9),
        seed=302,
    ),
    spiked("h-spikes-transformer", partial(transformer, 24, 12, 24), partial(markov, 24, 12), partial(adam, 5e-4), seed=303),
    spiked("h-spikes-transformer-adamw", partial(transformer, 12, 20, 32, 4), partial(markov, 12, 20), partial(adamw, 1e-3), seed=304),
    spiked("h-spikes-regression", partial(mlp, (4, 64, 64, 1), TANH, "lecun"), waves, partial(adam, 1e-3), seed=305),
]
CASES = HEALTHY + SICK
