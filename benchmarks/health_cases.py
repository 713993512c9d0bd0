"""The training runs of `training_health.py`: healthy ones, hard ones among them, and sick ones with the rules that may name them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from health_models import SIGMOID, TANH, cnn, cross_entropy, digits, markov, mlp, recall, rnn, transformer, waves
from health_runs import Case

_SIZES = (64, 128, 40, 10)
_DEEP = (64, *[64] * 8, 10)
sgd, momentum, adam, adamw = optax.sgd, partial(optax.sgd, momentum=0.9), optax.adam, optax.adamw


def _warm(peak: float, steps: int) -> Any:
    return optax.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps)


def _autoencoder(apply: Any, params: Any, x: Any, y: Any, key: Any) -> Any:
    return jnp.mean((apply(params, x, key) - x) ** 2)


def _reward(apply: Any, params: Any, x: Any, y: Any, key: Any) -> Any:
    """A policy gradient on a bandit: the action is drawn, the reward is 1 where it is the label."""
    logp = jax.nn.log_softmax(apply(params, x, key))
    action = jax.random.categorical(key, logp)
    gain = (action == y) - 0.1
    return -jnp.mean(gain * jnp.take_along_axis(logp, action[:, None], -1)[:, 0])


def _class_of_last(apply: Any, params: Any, x: Any, y: Any, key: Any) -> Any:
    return cross_entropy(apply(params, x, key)[:, -1], y)


HEALTHY = [
    Case("mlp-sgd", partial(mlp, _SIZES), digits, partial(sgd, 0.1), seed=1),
    Case("mlp-momentum", partial(mlp, _SIZES), digits, partial(momentum, 0.02), seed=2),
    Case("mlp-adam", partial(mlp, _SIZES), digits, partial(adam, 1e-3), seed=3, steps=800),
    Case("mlp-adam-unit", partial(mlp, _SIZES), partial(digits, "unit"), partial(adam, 3e-3), seed=4),
    Case("mlp-tanh", partial(mlp, _SIZES, TANH, "glorot"), digits, partial(sgd, 0.1), seed=5),
    Case("mlp-sigmoid-1", partial(mlp, (64, 64, 10), SIGMOID, "glorot"), digits, partial(adam, 3e-3), seed=6),
    Case("mlp-sigmoid-2-plateau", partial(mlp, (64, 64, 64, 10), SIGMOID, "glorot"), digits, partial(sgd, 0.3), seed=7, steps=1500),
    Case("mlp-deep-relu", partial(mlp, _DEEP), digits, partial(adam, 1e-3), seed=8),
    Case("mlp-norm", partial(mlp, _DEEP, norm=True), digits, partial(adam, 2e-3), seed=9),
    Case("mlp-residual", partial(mlp, _DEEP, scheme="lecun", residual=True), digits, partial(momentum, 0.002), seed=10),
    Case("mlp-dropout", partial(mlp, _SIZES, dropout=0.3), digits, partial(adam, 1e-3), seed=11),
    Case("mlp-batch-1", partial(mlp, _SIZES), digits, partial(sgd, 0.005), seed=12, batch=1, steps=1500),
    Case("mlp-batch-4-adam", partial(mlp, _SIZES), digits, partial(adam, 5e-4), seed=13, batch=4, steps=1200),
    Case("mlp-label-noise", partial(mlp, _SIZES), partial(digits, noise=0.2), partial(adam, 1e-3), seed=14, steps=700),
    Case("mlp-overfit", partial(mlp, _SIZES), partial(digits, samples=40), partial(adam, 4e-3), seed=15, batch=40, steps=1200),
    Case("mlp-overfit-sgd", partial(mlp, _SIZES), partial(digits, samples=64), partial(momentum, 0.05), seed=16, batch=16, steps=1200),
    Case("mlp-fine-tune", partial(mlp, _SIZES), digits, partial(adam, 1e-3), seed=17, absent="layers.0"),
    Case("mlp-zero-head", partial(mlp, _SIZES, zero_head=True), digits, partial(adam, 1e-3), seed=18),
    Case("mlp-bfloat16", partial(mlp, _SIZES), digits, partial(adam, 2e-3), seed=19, dtype="bfloat16"),
    Case("mlp-warmup-cosine", partial(mlp, _SIZES), digits, lambda: adamw(_warm(3e-3, 600), weight_decay=0.1), seed=20, steps=600),
    Case("mlp-clip", partial(mlp, _SIZES), digits, lambda: optax.chain(optax.clip_by_global_norm(0.5), sgd(0.2)), seed=21),
    Case("mlp-regression", partial(mlp, (4, 64, 64, 1), TANH, "lecun"), waves, partial(adam, 2e-3), seed=22, steps=800),
    Case("mlp-autoencoder", partial(mlp, (64, 32, 8, 32, 64)), digits, partial(adam, 2e-3), seed=23, loss=_autoencoder, steps=600),
    Case("mlp-reward", partial(mlp, (64, 64, 10)), digits, partial(adam, 1e-3), seed=24, loss=_reward, steps=800),
    Case("mlp-float16", partial(mlp, _SIZES), digits, partial(sgd, 0.1), seed=37, dtype="float16"),
    Case("mlp-float16-scaled", partial(mlp, _SIZES), digits, partial(sgd, 0.1), seed=38, dtype="float16", scale=1024.0),
    Case("cnn-sgd", cnn, digits, partial(momentum, 0.02), seed=25),
    Case("cnn-adam", cnn, digits, partial(adam, 2e-3), seed=26),
    Case("cnn-adam-batch-8", partial(cnn, channels=(8, 16, 32)), digits, partial(adam, 1e-3), seed=27, batch=8, steps=700),
    Case("cnn-deep-sgd", partial(cnn, channels=(8, 16, 16)), digits, partial(sgd, 0.05), seed=28),
    Case("rnn-rows-adam", partial(rnn, 8, 32, 10), digits, partial(adam, 3e-3), seed=29),
    Case(
        "rnn-rows-clip", partial(rnn, 8, 48, 10), digits, lambda: optax.chain(optax.clip_by_global_norm(1.0), sgd(0.1)), seed=30, steps=600
    ),
    Case("rnn-recall", partial(rnn, 8, 32, 8, tokens=True), recall, partial(adam, 3e-3), seed=31, steps=800),
    Case("transformer-adam", partial(transformer, 16, 16), markov, partial(adam, 1e-3), seed=32, steps=500),
    Case(
        "transformer-adamw-warm",
        partial(transformer, 16, 16),
        markov,
        lambda: adamw(_warm(3e-3, 600), weight_decay=0.1),
        seed=33,
        steps=600,
    ),
    Case(
        "transformer-recall",
        partial(transformer, 8, 10, causal=False),
        recall,
        partial(adam, 1e-3),
        seed=34,
        loss=_class_of_last,
        steps=600,
    ),
    Case("transformer-sgd", partial(transformer, 16, 16), markov, partial(momentum, 0.1), seed=35, steps=600),
    Case("transformer-batch-4", partial(transformer, 32, 16), partial(markov, 32), partial(adam, 1e-3), seed=36, batch=4, steps=900),
]


# What the cause of a fault must say, by the beginning of its name (an `h-` before it left out).
CAUSES = {
    "lr-high": "learning rate too high",
    "lr-low": "learning rate too low",
    "unscaled": "never scaled|inputs .* so large that the activations saturate",
    "sigmoid-depth": "shrinks from layer to layer: saturating activations",
    "tiny-init-depth": r"`2/sqrt\(m\*n\)`",
    "init-no-sqrt": "missing sqrt",
    "init-small": "missing sqrt",
    "init-unit": "std 1",
    "init-zeros": "zeros",
    "init-fan-out": "fan-out for fan-in",
    "init-swapped": "swapped axes",
    "init-lecun": "LeCun for ReLU",
    "init-truncated": "uncorrected truncation",
    "init-doubled": "duplicated columns",
    "init-float16": "float16 underflow",
    "dead-relu-bias": "dead from the start: its bias|a large negative bias",
    "dead-relu-cnn": "dead from the start: its bias|a large negative bias",
    "dead-torch": "dead from the start: its bias|a large negative bias",
    "dead-mlp": "dead from the start: its bias|a large negative bias",
    "dead-partly": "dead from the start: its bias|a large negative bias",
    "dead-relu-rate": "learning rate too high|died around step",
    "exploding-rnn": "recurrent weight.* that multiplies the gradient",
    "detached": "no gradient|stop_gradient|detached",
    "frozen": "not updated|update",
    "shuffled": "label",
    "float16-overflow": "overflow|float16",
    "float16-underflow": "too small for float16|float16 can add",
    "skipped": "thrown away|not finite",
    "nonfinite": "not finite",
}


def _sick(name: str, rules: str, *args: Any, **kw: Any) -> Case:
    fault = name.rpartition("-")[0]
    (cause,) = (words for beginning, words in CAUSES.items() if fault.removeprefix("h-").startswith(beginning))
    return Case(name, *args, expected=frozenset(rules.split()), cause=cause, fault=fault, **kw)


HIGH, LOW = "learning-rate-high", "learning-rate-low"
EXPLODING, OVERFLOW = "exploding-gradient", "overflow-headroom non-finite skipped-steps"
SICK = [
    _sick("lr-high-mlp.sgd-1", HIGH, partial(mlp, _SIZES), digits, partial(sgd, 10.0), seed=1),
    _sick("lr-high-mlp.momentum-2", HIGH, partial(mlp, _SIZES), digits, partial(momentum, 1.0), seed=2),
    _sick("lr-high-mlp.adam-3", HIGH, partial(mlp, _SIZES), digits, partial(adam, 0.3), seed=3),
    _sick("lr-high-mlp.adam.3-4", HIGH, partial(mlp, _SIZES), digits, partial(adam, 3.0), seed=4),
    _sick("lr-high-cnn.sgd-5", HIGH, cnn, digits, partial(sgd, 5.0), seed=5),
    _sick("lr-high-cnn.adam-6", HIGH, cnn, digits, partial(adam, 0.3), seed=6),
    _sick("lr-high-rnn.adam-7", HIGH, partial(rnn, 8, 32, 10), digits, partial(adam, 0.5), seed=7),
    _sick("lr-high-rnn.sgd-8", HIGH, partial(rnn, 8, 32, 10), digits, partial(sgd, 20.0), seed=8),
    _sick("lr-high-transformer.adam-9", HIGH, partial(transformer, 16, 16), markov, partial(adam, 0.3), seed=9),
    _sick("lr-high-transformer.sgd-10", HIGH, partial(transformer, 16, 16), markov, partial(sgd, 30.0), seed=10),
    _sick("lr-high-regression.sgd-11", HIGH, partial(mlp, (4, 64, 64, 1), TANH, "lecun"), waves, partial(sgd, 2.0), seed=11),
    _sick("lr-low-mlp.sgd-1", LOW, partial(mlp, _SIZES), digits, partial(sgd, 1e-5), seed=1),
    _sick("lr-low-mlp.adam-2", LOW, partial(mlp, _SIZES), digits, partial(adam, 1e-7), seed=2),
    _sick("lr-low-cnn.adam-3", LOW, cnn, digits, partial(adam, 1e-6), seed=3),
    _sick("lr-low-cnn.sgd-4", LOW, cnn, digits, partial(sgd, 1e-5), seed=4),
    _sick("lr-low-rnn.adam-5", LOW, partial(rnn, 8, 32, 10), digits, partial(adam, 1e-6), seed=5),
    _sick("lr-low-transformer.adam-6", LOW, partial(transformer, 16, 16), markov, partial(adam, 1e-7), seed=6),
    _sick("lr-low-transformer.sgd-7", LOW, partial(transformer, 16, 16), markov, partial(sgd, 1e-5), seed=7),
    _sick("unscaled-mlp.sgd-1", "inputs-unscaled", partial(mlp, _SIZES), partial(digits, "raw"), partial(sgd, 0.1), seed=1),
    _sick("unscaled-mlp.adam-2", "inputs-unscaled", partial(mlp, _SIZES), partial(digits, "raw"), partial(adam, 1e-3), seed=2),
    _sick("unscaled-cnn.adam-3", "inputs-unscaled", cnn, partial(digits, "raw"), partial(adam, 1e-3), seed=3),
    _sick("unscaled-cnn.sgd-4", "inputs-unscaled", cnn, partial(digits, "raw"), partial(sgd, 0.02), seed=4),
    _sick(
        "unscaled-sigmoid-5",
        "inputs-unscaled saturated-units",
        partial(mlp, (64, 64, 10), SIGMOID, "glorot"),
        partial(digits, "raw"),
        partial(sgd, 0.1),
        seed=5,
    ),
    _sick(
        "unscaled-tanh-6",
        "inputs-unscaled saturated-units",
        partial(mlp, _SIZES, TANH, "glorot"),
        partial(digits, "raw"),
        partial(adam, 1e-3),
        seed=6,
    ),
    _sick(
        "unscaled-rnn-7", "inputs-unscaled saturated-units", partial(rnn, 8, 32, 10), partial(digits, "raw"), partial(adam, 1e-3), seed=7
    ),
    _sick("sigmoid-depth-1", "vanishing-gradient", partial(mlp, (64, *[64] * 5, 10), SIGMOID, "glorot"), digits, partial(sgd, 0.1), seed=1),
    _sick("sigmoid-depth-2", "vanishing-gradient", partial(mlp, (64, *[32] * 8, 10), SIGMOID, "glorot"), digits, partial(sgd, 0.5), seed=2),
    _sick(
        "sigmoid-depth-3", "vanishing-gradient", partial(mlp, (64, *[64] * 10, 10), SIGMOID, "glorot"), digits, partial(adam, 1e-3), seed=3
    ),
    _sick(
        "sigmoid-depth-4", "vanishing-gradient", partial(mlp, (64, *[128] * 6, 10), SIGMOID, "lecun"), digits, partial(adam, 1e-3), seed=4
    ),
    _sick("tiny-init-depth-5", "vanishing-gradient init-scale", partial(mlp, _DEEP, scheme="he-wrong"), digits, partial(sgd, 0.1), seed=5),
    _sick("init-no-sqrt-6", "vanishing-gradient init-scale", partial(mlp, _DEEP, scheme="no-sqrt"), digits, partial(sgd, 0.1), seed=6),
    _sick("init-unit-1", "exploding-gradient init-scale", partial(mlp, _DEEP, scheme="unit"), digits, partial(sgd, 0.01), seed=1),
    _sick(
        "init-unit-2", "exploding-gradient init-scale", partial(mlp, (64, 256, 256, 10), scheme="unit"), digits, partial(sgd, 0.1), seed=2
    ),
    _sick(
        "init-unit-tanh-3",
        "saturated-units init-scale exploding-gradient",
        partial(mlp, (64, 256, 256, 10), TANH, "unit"),
        digits,
        partial(adam, 1e-3),
        seed=3,
    ),
    _sick("init-zeros-4", "init-symmetry", partial(mlp, _SIZES, scheme="zeros"), digits, partial(sgd, 0.1), seed=4),
    _sick("init-fan-out-1", "init-scale", partial(mlp, (64, 256, 64, 10), scheme="fan-out"), digits, partial(sgd, 0.05), seed=1),
    _sick("init-fan-out-2", "init-scale", partial(cnn, channels=(8, 32), scheme="fan-out"), digits, partial(adam, 1e-3), seed=2),
    _sick("init-swapped-1", "init-scale", partial(mlp, (64, 128, 40, 10), scheme="swapped"), digits, partial(adam, 1e-3), seed=3),
    _sick("init-lecun-1", "init-scale", partial(mlp, _DEEP, scheme="lecun"), digits, partial(sgd, 0.1), seed=4),
    _sick("init-lecun-2", "init-scale", partial(cnn, channels=(16, 32), scheme="lecun"), digits, partial(adam, 1e-3), seed=5),
    _sick("init-truncated-1", "init-scale", partial(mlp, _SIZES, scheme="truncated"), digits, partial(sgd, 0.1), seed=6),
    _sick("init-truncated-2", "init-scale", partial(cnn, channels=(16, 32), scheme="truncated"), digits, partial(sgd, 0.05), seed=7),
    _sick("init-doubled-1", "init-symmetry", partial(mlp, _SIZES, scheme="doubled"), digits, partial(adam, 1e-3), seed=8),
    _sick("init-doubled-2", "init-symmetry", partial(cnn, scheme="doubled"), digits, partial(momentum, 0.02), seed=9),
    _sick("init-float16-1", "init-scale", partial(mlp, _SIZES, scheme="sunk"), digits, partial(sgd, 0.1), seed=10, dtype="float16"),
    _sick("dead-relu-bias-1", "dead-units", partial(mlp, _SIZES, bias=-10.0), digits, partial(sgd, 0.1), seed=1),
    _sick("dead-relu-bias-2", "dead-units", partial(mlp, _SIZES, bias=-3.0), digits, partial(adam, 1e-3), seed=2),
    _sick("dead-relu-cnn-3", "dead-units", partial(cnn, bias=-10.0), digits, partial(adam, 1e-3), seed=3),
    _sick("dead-relu-rate-4", "dead-units learning-rate-high", partial(mlp, _SIZES), digits, partial(adam, 0.1), seed=4),
    _sick("dead-relu-rate-5", "dead-units learning-rate-high", partial(mlp, _SIZES), digits, partial(sgd, 3.0), seed=5),
    _sick("exploding-rnn-1", EXPLODING, partial(rnn, 1, 32, 10, gain=2.5), digits, partial(sgd, 0.01), seed=1),
    _sick("exploding-rnn-2", EXPLODING, partial(rnn, 2, 32, 10, gain=1.6, act=jax.nn.relu), digits, partial(sgd, 0.01), seed=2),
    _sick("exploding-rnn-3", EXPLODING, partial(rnn, 2, 48, 10, gain=3.0), digits, partial(adam, 1e-3), seed=3),
    _sick("exploding-rnn-4", EXPLODING, partial(rnn, 2, 32, 10, gain=1.5, act=lambda x: x), digits, partial(adam, 1e-3), seed=4),
    _sick("detached-mlp-1", "frozen-parameters", partial(mlp, _SIZES, detach=1), digits, partial(sgd, 0.1), seed=1),
    _sick("detached-mlp-2", "frozen-parameters", partial(mlp, _DEEP, detach=4), digits, partial(adam, 1e-3), seed=2),
    _sick("detached-transformer-3", "frozen-parameters", partial(transformer, 16, 16, detach=True), markov, partial(adam, 1e-3), seed=3),
    _sick("frozen-mlp-1", "frozen-parameters", partial(mlp, _SIZES), digits, partial(sgd, 0.1), seed=1, still="layers.0"),
    _sick("frozen-cnn-2", "frozen-parameters", cnn, digits, partial(adam, 1e-3), seed=2, still="conv2"),
    _sick("frozen-transformer-3", "frozen-parameters", partial(transformer, 16, 16), markov, partial(adam, 1e-3), seed=3, still="blocks.0"),
    _sick("frozen-rnn-4", "frozen-parameters", partial(rnn, 8, 32, 10), digits, partial(adam, 1e-3), seed=4, still="cell.wh"),
    _sick("shuffled-mlp-1", "loss-at-chance", partial(mlp, _SIZES), partial(digits, shuffled=True), partial(sgd, 0.05), seed=1),
    _sick("shuffled-mlp-2", "loss-at-chance", partial(mlp, _SIZES), partial(digits, shuffled=True), partial(adam, 1e-3), seed=2),
    _sick("shuffled-cnn-3", "loss-at-chance", cnn, partial(digits, shuffled=True), partial(adam, 1e-3), seed=3),
    _sick("shuffled-rnn-4", "loss-at-chance", partial(rnn, 8, 32, 10), partial(digits, shuffled=True), partial(adam, 1e-3), seed=4),
    _sick(
        "shuffled-transformer-5",
        "loss-at-chance",
        partial(transformer, 16, 16),
        partial(markov, shuffled=True),
        partial(adam, 1e-3),
        seed=5,
    ),
    _sick(
        "float16-overflow-1",
        OVERFLOW,
        partial(mlp, _DEEP),
        partial(digits, "raw"),
        partial(sgd, 1e-4),
        seed=1,
        dtype="float16",
        scale=8192.0,
    ),
    _sick("float16-overflow-2", OVERFLOW, partial(mlp, _SIZES), digits, partial(sgd, 0.05), seed=2, dtype="float16", scale=65536.0),
    _sick("float16-overflow-3", OVERFLOW, partial(mlp, _SIZES), digits, partial(sgd, 0.01), seed=3, dtype="float16", scale=3e5, skip=True),
    _sick("float16-overflow-4", OVERFLOW, cnn, digits, partial(adam, 1e-3), seed=4, dtype="float16", scale=30000.0),
    _sick(
        "float16-underflow-5",
        "underflow",
        partial(mlp, _SIZES),
        digits,
        partial(sgd, 1e3),
        seed=4,
        dtype="float16",
        scale=1e-4,
        unscale=False,
    ),
    _sick(
        "float16-underflow-6",
        "underflow",
        partial(mlp, (64, *[64] * 4, 10), SIGMOID, "glorot"),
        digits,
        partial(sgd, 0.1),
        seed=5,
        dtype="float16",
        scale=1e-2,
    ),
    _sick("float16-underflow-7", "underflow", cnn, digits, partial(sgd, 0.1), seed=6, dtype="float16", scale=1e-5),
    _sick("skipped-steps-1", "skipped-steps", partial(mlp, _SIZES), digits, partial(sgd, 0.05), seed=1, spoil=0.05, skip=True),
    _sick("skipped-steps-2", "skipped-steps", cnn, digits, partial(adam, 1e-3), seed=2, spoil=0.3, skip=True),
    _sick("skipped-steps-3", "skipped-steps", partial(transformer, 16, 16), markov, partial(adam, 1e-3), seed=3, spoil=1.0, skip=True),
    _sick("skipped-steps-4", "skipped-steps", partial(rnn, 8, 32, 10), digits, partial(adam, 1e-3), seed=4, spoil=0.1, skip=True),
    _sick("nonfinite-1", "non-finite", partial(mlp, _SIZES), digits, partial(sgd, 0.05), seed=1, spoil=0.01),
]


def spiked(name: str, *args: Any, steps: int = 3000, **kw: Any) -> Case:
    """A healthy run of which 40 steps' gradients are multiplied by 3, none within 20 of another."""
    rng = np.random.default_rng(kw["seed"])
    places = np.sort(rng.choice(np.arange(150, steps - 20, 20), 40, replace=False)) + rng.integers(0, 5, 40)
    return Case(name, *args, steps=steps, batch=64, spikes=tuple(int(place) for place in places), **kw)


SPIKED = [
    spiked("spikes-mlp-sgd", partial(mlp, _SIZES), partial(digits, noise=0.1), partial(sgd, 0.02), seed=51),
    spiked("spikes-mlp-adam", partial(mlp, _SIZES), partial(digits, noise=0.3), partial(adam, 3e-4), seed=52),
    spiked("spikes-transformer-adam", partial(transformer, 16, 16), markov, partial(adam, 1e-3), seed=53),
    spiked("spikes-transformer-adamw", partial(transformer, 16, 16), markov, lambda: adamw(_warm(2e-3, 3000), weight_decay=0.05), seed=54),
]
CASES = HEALTHY + SICK
