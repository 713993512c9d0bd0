"""What the init audit sees with a program, a batch and a loss: the signal, the gradient, idle units, inputs, the loss at the start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.audit import audit
from nandetect.targets import model_file

MLP = model_file.load("mlp")
X = jnp.asarray(np.random.default_rng(0).normal(size=(256, 64)), jnp.float32)
Y = jax.nn.one_hot(jnp.arange(256) % 10, 10)


def drawn(scheme: str = "he", sizes: tuple[int, ...] = (64, 128, 40, 10)) -> dict[str, jax.Array]:
    return MLP.init(jax.random.key(0), sizes, scheme)


def with_activation(function):
    """The bundled model with another nonlinearity."""

    def apply(params, x):
        layers = len(params) // 2
        for layer in range(1, layers):
            x = function(x @ params[f"w{layer}"] + params[f"b{layer}"])
        return x @ params[f"w{layers}"] + params[f"b{layers}"]

    return apply


def audited(params, apply=MLP.apply, x=X):
    return audit(params, apply, x, lambda params: MLP.losses["stable"](apply(params, x), Y))


def told(findings) -> list[tuple[str, str, str | None]]:
    return [(one.rule, one.severity, one.layer) for one in findings]


def test_the_signal_and_the_gradient_are_those_that_numpy_measures():
    params = drawn()
    rows = audited(params).layers
    w = {name: np.asarray(value, np.float64) for name, value in params.items()}
    z1 = np.asarray(X, np.float64) @ w["w1"]
    z2 = np.maximum(z1, 0) @ w["w2"]
    z3 = np.maximum(z2, 0) @ w["w3"]
    probabilities = np.exp(z3) / np.exp(z3).sum(-1, keepdims=True)
    d3 = (probabilities - np.asarray(Y)) / len(X)
    d2 = (d3 @ w["w3"].T) * (z2 > 0)
    d1 = (d2 @ w["w2"].T) * (z1 > 0)
    np.testing.assert_allclose([row.forward for row in rows], [(z**2).mean() for z in (z1, z2, z3)], rtol=1e-3)
    np.testing.assert_allclose([row.backward for row in rows], [(d**2).sum() for d in (d1, d2, d3)], rtol=1e-3)


def test_the_signal_inside_a_scan_is_the_mean_over_its_iterations():
    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(6, 64, 64)) * (2 / 64) ** 0.5, jnp.float32)}

    def apply(params, x):
        return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, params["w"])[0]

    h, moments = np.asarray(X, np.float64), []
    for w in np.asarray(params["w"], np.float64):
        moments.append(((h @ w) ** 2).mean())
        h = np.maximum(h @ w, 0)
    found = audit(params, apply, X, lambda params: jnp.sum(apply(params, X)))
    np.testing.assert_allclose(found.layers[0].forward, np.mean(moments), rtol=1e-3)
    assert found.layers[0].backward > 0


def test_lecun_before_relu_is_a_mistake_and_as_a_librarys_default_a_note():
    plain = audited(drawn("lecun"))
    assert told(plain.findings)[:2] == [("init-scale", "warning", "w1"), ("init-scale", "warning", "w2")]
    assert plain.findings[0].cause == "LeCun for ReLU"
    kernel = jax.nn.initializers.lecun_normal()(jax.random.key(0), (64, 128))
    (note,) = nd.audit_init({"kernel": kernel}, lambda p, x: jax.nn.relu(x @ p["kernel"]), X)
    assert (note.severity, note.cause) == ("note", "LeCun for ReLU")
    assert nd.audit_init({"w": drawn("lecun")["w1"]}, lambda p, x: jnp.tanh(x @ p["w"]), X) == []


def test_a_deep_net_that_loses_its_gradient_is_warned_of():
    found = audited(drawn("glorot", (64,) + (64,) * 8 + (10,)), with_activation(jax.nn.sigmoid))
    assert ("vanishing-gradient", "warning", "w1") in told(found.findings)
    assert audited(drawn("glorot", (64,) + (64,) * 8 + (10,)), with_activation(jnp.tanh)).findings == ()


def test_a_gradient_that_overflows_is_an_error_with_its_cause():
    found = audited(drawn("unit", (64,) + (64,) * 40 + (10,))).findings
    (drift,) = [one for one in found if one.rule == "signal-drift"]
    assert (drift.severity, drift.cause) == ("error", "std 1: the draw was never scaled")


def test_dead_units_are_told_once_where_they_begin():
    params = {**drawn(), "b1": jnp.full(128, -30.0)}
    assert told(audited(params).findings) == [("dead-units", "warning", "w1")]


def test_saturated_units_have_the_scales_cause():
    found = audited({**drawn("unit"), "w3": drawn()["w3"]}, with_activation(jnp.tanh)).findings
    saturated = [one for one in found if one.rule == "saturated-units"]
    assert saturated and {one.cause for one in saturated} == {"std 1: the draw was never scaled"}


def test_inputs_are_judged_where_they_reach_the_first_kernel():
    raw = X * 100
    findings = audited(drawn(), x=raw).findings
    assert told(findings) == [("inputs-unscaled", "warning", "w1"), ("loss-at-start", "warning", None)]
    assert {one.cause for one in findings} == {"inputs that were never scaled"}
    assert nd.audit_init(drawn(), lambda params, x: MLP.apply(params, x / 100), raw) == []


def test_small_weights_that_make_up_for_large_inputs_are_not_to_be_mended_alone():
    wrong = next(one for one in audited(drawn("he-wrong"), x=X * 100).findings if one.rule == "init-scale")
    assert wrong.help.startswith("scale the inputs first, since small weights make up for their size; then write `")


def test_a_loss_that_is_summed_is_noted_as_that():
    found = nd.audit_init(drawn(), MLP.apply, X, lambda params: 256 * MLP.losses["stable"](MLP.apply(params, X), Y))
    assert [(one.rule, one.severity, one.cause) for one in found] == [
        ("loss-at-start", "note", "a loss summed over the batch, not averaged")
    ]


@pytest.mark.parametrize(
    ("zero", "rule"), [("w1", "init-symmetry"), ("w2", "init-symmetry"), ("w3", None)], ids=["first", "middle", "last"]
)
def test_zeros_belong_into_the_last_layer_only(zero, rule):
    params = drawn()
    found = audited({**params, zero: jnp.zeros_like(params[zero])}).findings
    assert [one.rule for one in found] == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"apply": MLP.apply}, "was given apply and no inputs"),
        (
            {"apply": lambda params, x: x @ params["nope"], "inputs": X},
            "apply could not be traced on these parameters and inputs: KeyError",
        ),
        ({"loss": lambda params: params["w1"]}, r"loss\(params\) should return one floating number; it returns float32\[64, 128\]"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(arguments, said):
    with pytest.raises(nd.UsageError, match=said):
        nd.audit_init(drawn(), **arguments)
