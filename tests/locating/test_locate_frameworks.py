"""flax, equinox, haiku, optax: their own jits, their scopes, their modules; the line is the user's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest


def test_linen_scope_is_the_path_of_the_module(find, xs):
    nn = pytest.importorskip("flax.linen")

    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jnp.log(nn.Dense(4)(x) * 0)  # <-- origin

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Inner(name="head")(x)

    model = Outer()
    origin = find(jax.jit(model.apply), model.init(jax.random.key(0), xs), xs).origin
    assert (origin.primitive, origin.scope) == ("log", "Outer/head")


def test_nan_parameter_of_a_module_is_named_by_its_path(xs):
    nn = pytest.importorskip("flax.linen")
    import nandetect as nd

    model = nn.Dense(2)
    variables = model.init(jax.random.key(0), xs)
    variables["params"]["kernel"] = variables["params"]["kernel"].at[1, 0].set(jnp.nan)
    report = nd.locate(jax.jit(lambda variables, x: model.apply(variables, x)), variables, xs)
    assert report is not None
    assert (report.origin.argument, report.origin.index) == ("variables['params']['kernel']", (1, 0))


def test_nnx_jit_with_a_module_as_argument(find, xs):
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            return jnp.log(self.dense(x) * 0)  # <-- origin

    origin = find(nnx.jit(lambda model, x: model(x)), Model(nnx.Rngs(0)), xs).origin
    assert (origin.primitive, origin.phase) == ("log", "forward")


def test_nnx_training_step_with_an_optimizer_as_argument(find, xs):
    nnx, optax = pytest.importorskip("flax.nnx"), pytest.importorskip("optax")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        loss, slope = nnx.value_and_grad(lambda model: jnp.log(model(x) * 0).sum())(model)  # <-- origin
        optimizer.update(model, slope)
        return loss

    assert find(step, model, optimizer, xs).origin.phase == "forward"


def test_equinox_filter_jit_with_a_module_and_a_flag(find, xs, equinox):
    eqx = equinox

    @eqx.filter_jit
    def f(model, x, flag):
        return jnp.log(model(x) * 0) if flag else x  # <-- origin

    model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    assert find(f, model, xs, True).origin.primitive == "log"


def test_equinox_gradient_is_backward(find, xs, equinox):
    eqx = equinox

    @eqx.filter_jit
    def step(model, x):
        return eqx.filter_value_and_grad(lambda model: jnp.sqrt(model(x) * 0).sum())(model)  # <-- origin

    assert find(step, eqx.nn.Linear(3, 2, key=jax.random.key(0)), xs).origin.phase == "backward"


def test_haiku_scope_is_the_module_where_the_operation_is_inside_it(find, xs):
    hk = pytest.importorskip("haiku")

    class Head(hk.Module):
        def __call__(self, x):
            return jnp.log(hk.Linear(3)(x) * 0)  # <-- origin

    model = hk.without_apply_rng(hk.transform(lambda x: Head()(x)))
    origin = find(jax.jit(model.apply), model.init(jax.random.key(0), xs), xs).origin
    assert origin.scope.endswith("head")


def test_library_operation_stands_on_the_line_that_called_the_library(find, xs):
    optax = pytest.importorskip("optax")

    def loss(w, x):
        return optax.losses.kl_divergence(w * x, x).mean() + jnp.log(optax.losses.squared_error(w, w))  # <-- origin

    assert find(jax.jit(jax.value_and_grad(loss)), jnp.float32(1), xs + 1).origin.primitive == "log"


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated:DeprecationWarning")
def test_library_derivative_stands_on_the_line_that_called_the_library(find, xs):
    optax = pytest.importorskip("optax")

    def loss(w, x):
        return jnp.sqrt(optax.global_norm([w * x]) * 0)  # <-- origin

    assert find(jax.jit(jax.value_and_grad(loss)), jnp.float32(1), xs).origin.phase == "backward"
