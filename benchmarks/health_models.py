"""The small models and tasks that `training_health.py` trains: plain JAX, each a pair of `init(key)` and `loss(params, batch, key)`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from init_audit import MISTAKES

from nandetect import data

Params = Any
RELU, TANH, SIGMOID, GELU = jax.nn.relu, jnp.tanh, jax.nn.sigmoid, jax.nn.gelu

# The standard deviation of a weight with m inputs and n outputs.
SCHEMES: dict[str, Callable[[int, int], float]] = {
    "he": lambda m, n: math.sqrt(2 / m),
    "lecun": lambda m, n: math.sqrt(1 / m),
    "glorot": lambda m, n: math.sqrt(2 / (m + n)),
    "he-wrong": lambda m, n: 2 / math.sqrt(m * n),
    "no-sqrt": lambda m, n: 2 / m,
    "unit": lambda m, n: 1.0,
    "tiny": lambda m, n: 1e-4,
    "zeros": lambda m, n: 0.0,
    "fan-out": lambda m, n: math.sqrt(2 / n),
    "sunk": lambda m, n: 1e-6,
}
# Draws that are wrong in more than their scale.
DRAWS: dict[str, Callable[[Any, tuple[int, ...]], Any]] = {
    "swapped": MISTAKES["swapped axes"][0],
    "truncated": MISTAKES["uncorrected truncation"][0],
    "doubled": lambda key, shape: _doubled(key, shape),
}


@dataclass(frozen=True)
class Model:
    """`init(key)` gives parameters, `apply(params, inputs, key)` the logits."""

    init: Callable[[Any], Params]
    apply: Callable[..., Any]


def _drawn(key: Any, shape: tuple[int, ...], scheme: str) -> Any:
    """A kernel (*window, inputs, outputs)."""
    if scheme in DRAWS:
        return DRAWS[scheme](key, shape)
    window = math.prod(shape[:-2])
    return jax.random.normal(key, shape) * SCHEMES[scheme](window * shape[-2], window * shape[-1])


def _doubled(key: Any, shape: tuple[int, ...]) -> Any:
    """He's scale, and the second half of the outputs a copy of the first."""
    half = _drawn(key, (*shape[:-1], -(-shape[-1] // 2)), "he")
    return jnp.concatenate([half, half], -1)[..., : shape[-1]]


def _dense(key: Any, m: int, n: int, scheme: str, bias: float = 0.0) -> dict[str, Any]:
    return {"w": _drawn(key, (m, n), scheme), "b": jnp.full(n, bias)}


def _through(layer: dict[str, Any], x: Any) -> Any:
    return x @ layer["w"] + layer["b"]


def mlp(
    sizes: tuple[int, ...],
    act: Callable[..., Any] = RELU,
    scheme: str = "he",
    bias: float = 0.0,
    detach: int | None = None,
    dropout: float = 0.0,
    norm: bool = False,
    zero_head: bool = False,
    residual: bool = False,
) -> Model:
    """A multi-layer perceptron; no gradient reaches what comes before layer `detach`."""

    def init(key: Any) -> Params:
        keys = jax.random.split(key, len(sizes))
        layers = [_dense(keys[i], sizes[i], sizes[i + 1], scheme, bias if i < len(sizes) - 2 else 0.0) for i in range(len(sizes) - 1)]
        if zero_head:
            layers[-1] = {"w": jnp.zeros_like(layers[-1]["w"]), "b": layers[-1]["b"]}
        if norm:
            layers = [layer | {"scale": jnp.ones(layer["b"].shape)} for layer in layers]
        return {"layers": layers}

    def apply(params: Params, x: Any, key: Any) -> Any:
        x = x.reshape(x.shape[0], -1).astype(params["layers"][0]["w"].dtype)
        for i, layer in enumerate(params["layers"]):
            if i == detach:
                x = jax.lax.stop_gradient(x)
            before, x = x, _through(layer, x)
            if i == len(params["layers"]) - 1:
                return x
            if norm:
                x = layer["scale"] * (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
            x = act(x)
            if residual and before.shape == x.shape:
                x = x + before
            if dropout:
                x = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, i), 1 - dropout, x.shape), x / (1 - dropout), 0)
        return x

    return Model(init, apply)


def cnn(
    size: int = 8, channels: tuple[int, ...] = (8, 16), scheme: str = "he", bias: float = 0.0, classes: int = 10, act: Any = RELU
) -> Model:
    """Convolutions of stride 1, then 2, and a dense head."""

    def init(key: Any) -> Params:
        keys = jax.random.split(key, len(channels) + 1)
        params: dict[str, Any] = {}
        before = 1
        for i, now in enumerate(channels):
            params[f"conv{i + 1}"] = {"kernel": _drawn(keys[i], (3, 3, before, now), scheme), "bias": jnp.full(now, bias)}
            before = now
        m = before * (-(-size // 2 ** (len(channels) - 1))) ** 2
        params["head"] = {"kernel": _drawn(keys[-1], (m, classes), scheme), "bias": jnp.zeros(classes)}
        return params

    def apply(params: Params, x: Any, key: Any) -> Any:
        x = x.reshape(x.shape[0], size, size, 1).astype(params["head"]["kernel"].dtype)
        for i in range(len(channels)):
            layer = params[f"conv{i + 1}"]
            stride = (1, 1) if i == 0 else (2, 2)
            x = jax.lax.conv_general_dilated(x, layer["kernel"], stride, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = act(x + layer["bias"])
        return x.reshape(x.shape[0], -1) @ params["head"]["kernel"] + params["head"]["bias"]

    return Model(init, apply)


def rnn(inputs: int, hidden: int, classes: int, gain: float = 1.0, act: Any = TANH, tokens: bool = False) -> Model:
    """A plain recurrent network, whose recurrent kernel is an orthogonal matrix times `gain`; the last state is read out."""

    def init(key: Any) -> Params:
        keys = jax.random.split(key, 3)
        return {
            "cell": {
                "wx": jax.random.normal(keys[0], (inputs, hidden)) / math.sqrt(1 if tokens else inputs) * (0.5 if tokens else 1.0),
                "wh": jax.nn.initializers.orthogonal(gain)(keys[1], (hidden, hidden)),
                "b": jnp.zeros(hidden),
            },
            "readout": _dense(keys[2], hidden, classes, "lecun"),
        }

    def apply(params: Params, x: Any, key: Any) -> Any:
        cell = params["cell"]
        given = cell["wx"][x] if tokens else x.reshape(x.shape[0], -1, inputs) @ cell["wx"]

        def step(h: Any, now: Any) -> tuple[Any, None]:
            return act(now + h @ cell["wh"] + cell["b"]), None

        h, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], hidden)), given.swapaxes(0, 1))
        return _through(params["readout"], h)

    return Model(init, apply)


def transformer(
    vocabulary: int,
    length: int,
    width: int = 32,
    heads: int = 2,
    blocks: int = 2,
    scale: float = 0.02,
    causal: bool = True,
    detach: bool = False,
) -> Model:
    """Pre-norm, learned positions, GPT-2's initial scale; a next-token head (or a class read off the last position, by the loss)."""

    def init(key: Any) -> Params:
        keys = iter(jax.random.split(key, 3 + 4 * blocks))

        def drawn(*shape: int) -> Any:
            return jax.random.normal(next(keys), shape) * scale

        def norm() -> Any:
            return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}

        return {
            "embed": drawn(vocabulary, width),
            "position": drawn(length, width),
            "blocks": [
                {
                    "norm1": norm(),
                    "qkv": drawn(width, 3 * width),
                    "proj": drawn(width, width),
                    "norm2": norm(),
                    "up": {"w": drawn(width, 4 * width), "b": jnp.zeros(4 * width)},
                    "down": {"w": drawn(4 * width, width), "b": jnp.zeros(width)},
                }
                for _ in range(blocks)
            ],
            "norm": norm(),
            "head": drawn(width, vocabulary),
        }

    def normed(layer: Any, x: Any) -> Any:
        return layer["scale"] * (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) + layer["bias"]

    def attend(block: Any, x: Any) -> Any:
        q, k, v = (part.reshape(*x.shape[:2], heads, -1) for part in jnp.split(x @ block["qkv"], 3, -1))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        if causal:
            scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -1e30)
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(x.shape) @ block["proj"]

    def apply(params: Params, x: Any, key: Any) -> Any:
        h = params["embed"][x] + params["position"][: x.shape[1]]
        for i, block in enumerate(params["blocks"]):
            h = jax.lax.stop_gradient(h) if detach and i == 1 else h
            h = h + attend(block, normed(block["norm1"], h))
            h = h + _through(block["down"], GELU(_through(block["up"], normed(block["norm2"], h))))
        return normed(params["norm"], h) @ params["head"]

    return Model(init, apply)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean over everything but the classes, in float32."""
    logp = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(jnp.take_along_axis(logp, labels[..., None], -1))


def squares(outputs: Any, targets: Any) -> Any:
    return jnp.mean((outputs.astype(jnp.float32) - targets) ** 2)


@dataclass(frozen=True)
class Task:
    """All the samples, and of a batch of them the loss."""

    inputs: np.ndarray
    targets: np.ndarray
    loss: Callable[[Any, Any], Any] = cross_entropy


def digits(scaling: str = "standard", noise: float = 0.0, shuffled: bool = False, samples: int | None = None, seed: int = 0) -> Task:
    """The embedded digits; `noise` is the share of labels that are drawn anew, `shuffled` permutes them all."""
    given = data.scaled(data.load("digits"), scaling).train
    return _images(given.inputs, given.labels, noise, shuffled, samples, seed)


def mnist(folder: Path, scaling: str = "standard", noise: float = 0.0, shuffled: bool = False, seed: int = 0) -> Task:
    """8,000 images of a directory of IDX files."""
    given = data.scaled(data.load(str(folder)), scaling).train
    return _images(given.inputs, given.labels, noise, shuffled, None, seed)


def _images(inputs: np.ndarray, labels: np.ndarray, noise: float, shuffled: bool, samples: int | None, seed: int) -> Task:
    rng = np.random.default_rng(seed)
    if samples:
        inputs, labels = inputs[:samples], labels[:samples]
    labels = rng.permutation(labels) if shuffled else labels
    wrong = rng.random(len(labels)) < noise
    return Task(np.asarray(inputs, np.float32), np.where(wrong, rng.integers(0, 10, len(labels)), labels).astype(np.int32))


def markov(vocabulary: int = 16, length: int = 16, samples: int = 2000, seed: int = 0, shuffled: bool = False) -> Task:
    """Sequences of a chain in which three tokens may follow each; the target is the next token."""
    rng = np.random.default_rng(seed)
    follows = rng.integers(0, vocabulary, (vocabulary, 3))
    tokens = rng.integers(0, vocabulary, (samples, length + 1))
    for i in range(1, length + 1):
        tokens[:, i] = follows[tokens[:, i - 1], rng.choice(3, samples, p=(0.7, 0.2, 0.1))]
    targets = rng.integers(0, vocabulary, (samples, length)) if shuffled else tokens[:, 1:]
    return Task(tokens[:, :-1].astype(np.int32), targets.astype(np.int32))


def recall(vocabulary: int = 8, length: int = 10, samples: int = 2000, seed: int = 0, shuffled: bool = False) -> Task:
    """Sequences of tokens whose class is the first one."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocabulary, (samples, length))
    labels = rng.permutation(tokens[:, 0]) if shuffled else tokens[:, 0]
    return Task(tokens.astype(np.int32), labels.astype(np.int32))


def waves(samples: int = 1000, seed: int = 0, features: int = 4) -> Task:
    """Real targets: a sum of sines of the inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, features)).astype(np.float32)
    y = np.sin(x @ rng.normal(size=(features, 3))).sum(1, keepdims=True) + 0.05 * rng.normal(size=(samples, 1))
    return Task(x, y.astype(np.float32), squares)
