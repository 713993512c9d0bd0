"""The arguments and results of a step that a library jitted are told as the user's function has them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect.run.everywhere import watching


def told(make, *args, **named):
    """The report of one call of what `make` jits, as `nandetect run` finds it."""
    reports = []
    with watching(reports.append) as watched:
        make()(*args, **named)
        watched.flush()
    (report,) = reports
    return report


@pytest.mark.parametrize("donate", ["none", "all"])
def test_what_equinox_takes_apart_is_told_by_the_users_paths(equinox, donate):
    class Layer(equinox.Module):
        weight: jax.Array

    class Model(equinox.Module):
        layers: list[Layer]
        name: str

    def make():
        @equinox.filter_jit(donate=donate)
        def step(model, batch, *, scale):
            def loss(model):
                hidden = batch["x"] @ model.layers[0].weight
                return jnp.mean(hidden @ model.layers[1].weight * scale)

            value, grads = equinox.filter_value_and_grad(loss)(model)
            return value, equinox.apply_updates(model, grads)

        return step

    weights = [jnp.eye(3), jnp.eye(3).at[1, 1].set(jnp.asarray(np.nan))]
    model = Model([Layer(weight) for weight in weights], "net")
    report = told(make, model, {"x": jnp.ones((2, 3))}, scale=jnp.float32(1))
    assert (report.origin.primitive, report.origin.argument) == ("<input>", "model.layers[1].weight")
    assert report.symptoms == ("[0]", "[1].layers[0].weight", "[1].layers[1].weight")


def test_a_result_that_is_the_whole_of_what_is_returned_has_no_path_of_equinoxs(equinox):
    def make():
        return equinox.filter_jit(lambda x, y: jnp.log(x) - y)

    report = told(make, np.zeros(2, np.float32), np.ones(2, np.float32))
    assert (report.symptoms, report.origin.operands[0].name) == (("result",), "x")


def test_what_the_user_jits_is_told_as_it_was_jitted():
    def loss(w, x):
        return jnp.sum(w * x), {"log": jnp.log(x)}

    report = told(lambda: jax.jit(jax.value_and_grad(loss, has_aux=True)), np.float32(1), np.zeros(2, np.float32))
    assert (report.symptoms, report.origin.operands[0].name) == (("[0][1]['log']",), "x")


def test_what_nnx_takes_apart_is_told_by_the_users_paths():
    nnx = pytest.importorskip("flax.nnx")
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def make():
        @nnx.jit
        def step(model, x):
            model.kernel[...] = jnp.log(model.bias[...] - 1.0) + model.kernel[...]
            return jnp.sum(model(x))

        return step

    report = told(make, layer, jnp.ones((4, 3)))
    assert (report.origin.primitive, report.origin.operands[0].name) == ("log", "model.bias[...] - 1.0")
    assert sorted(report.symptoms) == ["model.kernel.value", "result"]
