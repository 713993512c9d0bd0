"""`guard` around steps of flax, equinox, haiku and optax: the fault is in the gradient, so the call that has it returns a finite loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd

FAULT = 23


def batches():
    found = [np.random.default_rng(number).normal(size=(8, 4)).astype(np.float32) for number in range(40)]
    found[FAULT] *= 0
    return found


def stopped(training, step) -> nd.Report:
    """The report of a training loop that goes on for forty batches, looked at after every fifteen."""
    guarded = nd.guard(step, check_every=15)
    with pytest.raises(nd.NonFiniteError) as caught:
        training(guarded)
        guarded.flush()
    return caught.value.report


def length(y):
    """Finite at zero, where its gradient is not."""
    return jnp.mean(jnp.sqrt(jnp.sum(y**2, axis=-1)))


def test_nnx_changes_its_model_in_place():
    nnx, optax = pytest.importorskip("flax.nnx"), pytest.importorskip("optax")
    model = nnx.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda model: length(model(x)))(model)
        optimizer.update(model, grads)
        return loss

    def training(step):
        for x in batches():
            step(model, optimizer, x)

    report = stopped(training, step)
    assert (report.step, report.origin.primitive, report.origin.phase) == (FAULT, "div", "backward")


@pytest.mark.parametrize("check_every", [None, 1, 4])
def test_a_metric_beside_a_model_that_nnx_changes_in_place(check_every):
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))

    @nnx.jit
    def step(model, x):
        model.kernel[...] += 0.0
        model.bias[...] += 1.0
        return jnp.log(x - model.bias[...]).sum()

    # The bias is 1, 2, 3 in the calls: that of call 5 has the log of zero.
    guarded = nd.guard(step, check_every=check_every)
    with pytest.raises(nd.NonFiniteError) as caught:
        for _ in range(6):
            guarded(model, jnp.full(3, 6.0))
        guarded.flush()
    report = caught.value.report
    assert (report.step, report.origin.primitive, report.origin.value) == (5, "log", "-inf")


def test_equinox_filter_jit_that_donates_everything(equinox):
    eqx, optax = equinox, pytest.importorskip("optax")
    optimizer = optax.adam(0.01)

    @eqx.filter_jit(donate="all-except-first")
    def step(x, model, state):
        loss, grads = eqx.filter_value_and_grad(lambda model: length(jax.vmap(model)(x)))(model)
        updates, state = optimizer.update(grads, state, model)
        return eqx.apply_updates(model, updates), state, loss

    def training(step):
        model = eqx.nn.MLP(4, 3, 8, 1, use_bias=False, use_final_bias=False, activation=jnp.tanh, key=jax.random.key(0))
        state = optimizer.init(eqx.filter(model, eqx.is_array))
        for x in batches():
            model, state, _ = step(jnp.asarray(x), model, state)

    report = stopped(training, step)
    assert (report.step, report.origin.primitive, report.origin.phase) == (FAULT, "div", "backward")


def test_linen_train_state():
    linen, optax = pytest.importorskip("flax.linen"), pytest.importorskip("optax")
    from flax.training.train_state import TrainState

    @jax.jit
    def step(state, x):
        loss, grads = jax.value_and_grad(lambda params: length(state.apply_fn(params, x)))(state.params)
        return state.apply_gradients(grads=grads), {"loss": loss}

    def training(step):
        model = linen.Dense(3, use_bias=False)
        variables = model.init(jax.random.key(0), jnp.ones((8, 4)))
        state = TrainState.create(apply_fn=model.apply, params=variables, tx=optax.adam(0.01))
        for x in batches():
            state, _ = step(state, x)

    report = stopped(training, step)
    assert (report.step, report.origin.primitive, report.origin.phase) == (FAULT, "div", "backward")


def test_haiku_with_a_random_key():
    hk, optax = pytest.importorskip("haiku"), pytest.importorskip("optax")
    net = hk.transform(lambda x: hk.Linear(3, with_bias=False)(hk.dropout(hk.next_rng_key(), 0.1, x)))
    optimizer = optax.sgd(0.01)

    @jax.jit
    def step(params, state, key, x):
        key, own = jax.random.split(key)
        grads = jax.grad(lambda params: length(net.apply(params, own, x)))(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, key

    def training(step):
        params = net.init(jax.random.key(0), jnp.ones((8, 4)))
        state, key = optimizer.init(params), jax.random.key(1)
        for x in batches():
            params, state, key = step(params, state, key, x)

    report = stopped(training, step)
    assert (report.step, report.origin.primitive, report.origin.phase) == (FAULT, "div", "backward")


def test_gradients_of_a_step_whose_update_is_outside():
    def training(step):
        w = {"a": jnp.ones((4, 3))}
        for x in batches():
            grads = step(w, x)
            for name in w:
                w[name] = w[name] - 0.01 * grads[name]

    report = stopped(training, jax.jit(jax.grad(lambda w, x: length(x @ w["a"]))))
    assert (report.step, report.origin.primitive, report.origin.phase) == (FAULT, "div", "backward")


def test_a_method_that_is_jitted():
    class Trainer:
        def __init__(self):
            self.w = jnp.ones((4, 3))

        def train(self):
            for x in batches():
                self.w = self.step(self.w, x)

        def step(self, w, x):
            return w - 0.01 * jax.grad(lambda w: length(x @ w))(w)

    trainer = Trainer()
    step = jax.jit(Trainer.step, static_argnums=0)
    report = stopped(lambda guarded: (setattr(trainer, "step", lambda w, x: guarded(trainer, w, x)), trainer.train()), step)
    assert (report.step, report.origin.primitive) == (FAULT, "div")
