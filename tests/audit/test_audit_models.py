"""Models of flax, equinox, haiku and plain JAX are audited as they are; those that are drawn as they should be are given no warning."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.audit import audit
from nandetect.targets import model_file

BUNDLED = model_file.load("mlp")
X = jnp.asarray(np.random.default_rng(0).normal(size=(256, 64)), jnp.float32)
LABELS = jnp.arange(256) % 10
IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(16, 8, 8, 3)), jnp.float32)


def entropy(logits, labels=LABELS):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1))


def kernels(params, apply=None, inputs=None) -> dict[str, tuple[int, int, str]]:
    """What is known of each kernel: its fans, and what follows it."""
    return {layer.path: (layer.fan_in, layer.fan_out, layer.follows) for layer in audit(params, apply, inputs).layers}


def warnings(findings: list[nd.Finding]) -> list[tuple[str, str]]:
    return [(one.rule, one.cause) for one in findings if one.severity != "note"]


def healthy(params, apply, inputs, loss=None):
    """Nothing is said of the parameters alone, and nothing worse than a note of the whole."""
    assert nd.audit_init(params) == []
    assert warnings(nd.audit_init(params, apply, inputs, loss)) == []


def test_flax_nnx_with_normalisation_attention_and_dropout():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(64, 32, rngs=rngs)
            self.norm = nnx.BatchNorm(32, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(4, 32, rngs=rngs, decode=False)
            self.layer_norm = nnx.LayerNorm(32, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.last = nnx.Linear(32, 10, rngs=rngs)

        def __call__(self, x):
            h = nnx.relu(self.norm(self.first(x)))
            h = h + self.dropout(self.attention(self.layer_norm(h)))
            return self.last(nnx.gelu(h))

    model, x = Model(nnx.Rngs(0)), X[:, None, :].reshape(32, 8, 64)
    assert kernels(model, lambda model, x: model(x), x) == {
        "first.kernel": (64, 32, "norm"),
        "attention.query.kernel": (32, 32, "attention"),
        "attention.key.kernel": (32, 32, "attention"),
        "attention.value.kernel": (32, 32, "attention"),
        "attention.out.kernel": (32, 32, "residual"),
        "last.kernel": (32, 10, "output"),
    }
    healthy(model, lambda model, x: model(x), x, lambda model: entropy(model(x), LABELS.reshape(32, 8)))


def test_flax_linen_with_convolutions_pooling_and_an_embedding():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.avg_pool(nn.relu(nn.Conv(16, (3, 3))(x)), (2, 2))
            x = nn.silu(nn.Conv(16, (3, 3), feature_group_count=4)(x)).reshape(x.shape[0], -1)
            x = nn.tanh(nn.Dense(32)(x)) + nn.Embed(10, 32)(LABELS[:16])
            return nn.log_softmax(nn.Dense(10)(x))

    model = Model()
    params = model.init(jax.random.key(0), IMAGES)
    assert kernels(params, model.apply, IMAGES) == {
        "params.Conv_0.kernel": (27, 144, "relu"),
        "params.Conv_1.kernel": (36, 144, "silu"),
        "params.Dense_0.kernel": (784, 32, "tanh"),
        "params.Dense_1.kernel": (32, 10, "output"),
    }
    healthy(params, model.apply, IMAGES)


def test_a_model_that_can_be_called_needs_no_apply():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.Linear(64, 10, key=jax.random.key(0))
    assert audit(model, inputs=X[0]).layers[0].follows == "output"
    with pytest.raises(nd.UsageError, match="was given inputs and no apply"):
        nd.audit_init({"w": X}, inputs=X)


def test_equinox_keeps_its_outputs_first():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(64, 10, 32, 2, key=jax.random.key(0))

    def apply(model, x):
        return jax.vmap(model)(x)

    assert kernels(model) == {"layers[0].weight": (64, 32, ""), "layers[1].weight": (32, 32, ""), "layers[2].weight": (32, 10, "")}
    assert kernels(eqx.filter(model, eqx.is_array)) == kernels(model)
    assert kernels(model, apply, X)["layers[0].weight"] == (64, 32, "relu")
    healthy(model, apply, X, lambda model: entropy(apply(model, X)))
    wide = eqx.tree_at(lambda model: model.layers[0].weight, model, jax.random.normal(jax.random.key(1), (32, 64)) * (2 / 32) ** 0.5)
    assert warnings(nd.audit_init(wide))[0][1].startswith("fan-out for fan-in, or swapped axes")


def test_an_ensemble_under_vmap_has_the_fans_of_one_member():
    eqx = pytest.importorskip("equinox")
    ensemble = eqx.filter_vmap(lambda key: eqx.nn.MLP(64, 10, 32, 1, key=key))(jax.random.split(jax.random.key(0), 5))

    def apply(model, x):
        return eqx.filter_vmap(lambda member: jax.vmap(member)(x))(model)

    assert {path: fans[0] for path, fans in kernels(ensemble, apply, X).items()} == {"layers[0].weight": 64, "layers[1].weight": 32}
    healthy(ensemble, apply, X)


def test_the_cells_of_equinox_are_drawn_by_the_size_of_their_state():
    eqx = pytest.importorskip("equinox")
    cell = eqx.nn.GRUCell(64, 32, key=jax.random.key(0))

    def apply(cell, x):
        def step(h, x):
            return (cell(x, h), None)

        return jax.lax.scan(step, jnp.zeros(32), x)[0]

    healthy(cell, apply, X)


def test_haiku_with_a_layer_norm_and_a_convolution():
    hk = pytest.importorskip("haiku")

    def forward(x):
        x = jax.nn.relu(hk.Conv2D(16, 3, stride=2)(x)).mean((1, 2))
        return hk.Linear(10)(hk.LayerNorm(-1, True, True)(jax.nn.leaky_relu(hk.Linear(32)(x))))

    model = hk.without_apply_rng(hk.transform(forward))
    params = model.init(jax.random.key(0), IMAGES)
    assert kernels(params, model.apply, IMAGES) == {
        "conv2_d.w": (27, 144, "relu"),
        "linear_1.w": (16, 32, "leaky_relu"),
        "linear.w": (32, 10, "output"),
    }
    healthy(params, model.apply, IMAGES)


def test_a_scan_over_stacked_layers_and_a_transposed_kernel():
    rng = np.random.default_rng(0)
    stack, last = rng.normal(size=(5, 64, 64)) * (2 / 64) ** 0.5, rng.normal(size=(10, 64)) * (1 / 64) ** 0.5
    params = {"layers": {"w": jnp.float32(stack), "b": jnp.zeros((5, 64))}, "out": jnp.float32(last)}

    def apply(params, x):
        def body(h, layer):
            return (jnp.where((z := h @ layer["w"] + layer["b"]) > 0, z, 0), None)

        return jnp.einsum("bi,oi->bo", jax.checkpoint(lambda x: jax.lax.scan(body, x, params["layers"])[0])(x), params["out"])

    assert kernels(params, apply, X) == {"layers.w": (64, 64, "relu"), "out": (64, 10, "output")}
    assert warnings(nd.audit_init(params, apply, X, lambda params: entropy(apply(params, X)))) == []


def test_low_rank_adapters_start_at_zero():
    def draw(m, n):
        return jnp.asarray(np.random.default_rng(m + n).normal(size=(m, n)) * m**-0.5, jnp.float32)

    params = {"w": draw(64, 64), "a": draw(64, 4), "b": jnp.zeros((4, 64)), "out": jnp.zeros((64, 10))}

    def apply(p, x):
        return jax.nn.gelu(x @ p["w"] + x @ p["a"] @ p["b"]) @ p["out"]

    assert nd.audit_init(params, apply, X) == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("scheme", ["he", "glorot"])
def test_the_bundled_model_drawn_rightly(scheme, seed):
    params = BUNDLED.init(jax.random.key(seed), (64, 128, 40, 10), scheme)
    healthy(params, BUNDLED.apply, X, lambda params: entropy(BUNDLED.apply(params, X)))


@pytest.mark.parametrize(
    ("module", "follows"), [("relu", "relu"), ("gelu", "gelu"), ("silu", "silu"), ("tanh", "tanh"), ("softplus", "softplus")]
)
def test_a_nonlinearity_is_known_by_its_name_and_by_what_it_does(module, follows):
    by_hand = {
        "relu": lambda x: jnp.maximum(x, 0),
        "gelu": lambda x: 0.5 * x * (1 + jnp.tanh(0.79788 * (x + 0.044715 * x**3))),
        "silu": lambda x: x * jax.lax.logistic(x),
        "tanh": jnp.tanh,
        "softplus": lambda x: jnp.logaddexp(x, 0.0),
    }[module]
    params = {"a": jnp.ones((64, 32)), "b": jnp.ones((32, 10))}
    for function in (getattr(jax.nn, module), by_hand):
        assert kernels(params, lambda p, x, f=function: f(x @ p["a"]) @ p["b"], X)["a"] == (64, 32, follows)
