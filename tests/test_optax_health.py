"""`watch_updates`: the updates go through as they are, and its state says what they were."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect import optax_health

optax = pytest.importorskip("optax")

PARAMS = {"w": jnp.ones(3), "b": jnp.zeros(2)}
GOOD = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.ones(2)}
BAD = {"w": jnp.array([1.0, jnp.nan, 0.5]), "b": jnp.array([jnp.inf, 1.0])}


def after(transformation, *gradients):
    """The state of an optimizer that was given these gradients one after the other, compiled."""
    state, update = transformation.init(PARAMS), jax.jit(transformation.update)
    for gradient in gradients:
        _, state = update(gradient, state, PARAMS)
    return state


def counts(opt_state):
    """The four counts of a state, all int32: steps, the first bad step, bad steps, and bad steps in a row at the end."""
    state = optax_health.read(opt_state)
    assert {count.dtype for count in state[1:]} == {jnp.dtype(jnp.int32)}
    return tuple(int(count) for count in state[1:])


def test_updates_go_through_to_the_bit():
    watch = optax_health.watch_updates()
    for updates in (GOOD, BAD):
        out, _ = jax.jit(watch.update)(updates, watch.init(PARAMS))
        assert jax.tree.map(lambda x: x.tobytes(), jax.tree.map(np.asarray, out)) == jax.tree.map(
            lambda x: np.asarray(x).tobytes(), updates
        )
    assert watch.update(BAD, watch.init(PARAMS))[0] is BAD


# A tolerance for compiled updates: a sum that XLA fuses with the update may be rounded otherwise once the update is measured too.
@pytest.mark.parametrize(("compiled", "tolerance"), [(False, 0), (True, 1e-6)])
def test_training_with_the_watch_is_training_without_it(compiled, tolerance):
    def train(optimizer):
        params, state = PARAMS, optimizer.init(PARAMS)
        update = jax.jit(optimizer.update) if compiled else optimizer.update
        for slope in (1.0, 2.0, 3.0):
            updates, state = update(jax.tree.map(lambda x, slope=slope: x * slope, GOOD), state, params)
            params = optax.apply_updates(params, updates)
        return jax.tree.leaves(params)

    watched = optax.chain(optax_health.watch_updates(), optax.adam(1e-2), optax_health.watch_updates())
    for one, other in zip(train(watched), train(optax.adam(1e-2)), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    ("gradients", "expected"),
    [
        ([], (0, -1, 0, 0)),
        ([GOOD, GOOD], (2, -1, 0, 0)),
        ([BAD], (1, 0, 1, 1)),
        ([GOOD, BAD, BAD, GOOD, BAD], (5, 1, 3, 1)),
        ([BAD, GOOD], (2, 0, 1, 0)),
    ],
)
def test_the_state_says_which_steps_were_not_finite(gradients, expected):
    assert counts(after(optax.chain(optax_health.watch_updates(), optax.adam(1e-2)), *gradients)) == expected


def test_the_health_is_that_of_the_last_updates():
    health = optax_health.read(after(optax_health.watch_updates(), BAD, GOOD)).health
    assert (int(health.nan), int(health.inf), int(health.size), float(health.largest)) == (0, 0, 5, 2.0)
    health = optax_health.read(after(optax_health.watch_updates(), GOOD, BAD)).health
    assert (int(health.nan), int(health.inf), int(health.size), float(health.largest)) == (1, 1, 5, 1.0)


def test_the_state_is_carried_by_scan_and_its_health_comes_out_of_every_step():
    optimizer = optax.chain(optax_health.watch_updates(), optax.sgd(0.1))

    def step(state, slope):
        _, state = optimizer.update(jax.tree.map(lambda x: x / slope, GOOD), state)
        return state, optax_health.read(state).health

    state, health = jax.lax.scan(step, optimizer.init(PARAMS), jnp.array([1.0, 0.0, 0.0, 2.0]))
    assert counts(state) == (4, 1, 2, 0)
    np.testing.assert_array_equal(health.inf, [0, 5, 5, 0])


def test_extra_arguments_and_missing_params_are_accepted():
    watch = optax_health.watch_updates()
    _, state = watch.update(GOOD, watch.init(PARAMS), None, value=3.0)
    assert counts(state) == (1, -1, 0, 0)
    polyak = optax.chain(watch, optax.polyak_sgd())
    _, state = polyak.update(GOOD, polyak.init(PARAMS), PARAMS, value=3.0)
    assert counts(state) == (1, -1, 0, 0)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.named_chain(("watch", optax_health.watch_updates()), ("sgd", optax.sgd(0.1))),
        optax.partition({"a": optax_health.watch_updates(), "b": optax.sgd(0.1)}, {"w": "a", "b": "b"}),
        optax.masked(optax_health.watch_updates(), {"w": True, "b": False}),
        optax.inject_hyperparams(lambda rate: optax.chain(optax_health.watch_updates(), optax.sgd(rate)))(rate=0.1),
        optax.MultiSteps(optax.chain(optax_health.watch_updates(), optax.sgd(0.1)), 1),
    ],
    ids=["named_chain", "partition", "masked", "inject_hyperparams", "MultiSteps"],
)
def test_the_state_is_found_in_whatever_optax_wraps_around_it(optimizer):
    assert counts(after(optimizer, GOOD, BAD)) == (2, 1, 1, 1)


def test_before_apply_if_finite_the_skipped_steps_are_seen():
    optimizer = optax.chain(optax_health.watch_updates(), optax.apply_if_finite(optax.adam(1e-2), 5))
    state = after(optimizer, GOOD, BAD, GOOD)
    assert counts(state) == (3, 1, 1, 0)
    assert optax.tree_utils.tree_get(state, "total_notfinite") == optax.tree_utils.tree_get(state, "total_nonfinite") == 1


def test_inside_apply_if_finite_only_applied_steps_are_seen():
    optimizer = optax.apply_if_finite(optax.chain(optax_health.watch_updates(), optax.adam(1e-2)), 5)
    assert counts(after(optimizer, GOOD, BAD, GOOD)) == (2, -1, 0, 0)


def test_after_the_optimizer_it_sees_what_the_optimizer_made():
    optimizer = optax.chain(optax_health.watch_updates(), optax.adam(1e-2, eps=0.0), optax_health.watch_updates())
    first, _, last = after(optimizer, jax.tree.map(jnp.zeros_like, GOOD))
    assert (counts(first), counts(last)) == ((1, -1, 0, 0), (1, 0, 1, 1))


def test_counts_stay_at_the_largest_int32():
    watch = optax_health.watch_updates()
    most = jnp.int32(2**31 - 1)
    start = optax_health.read(watch.init(PARAMS))
    state: Any = start._replace(steps=most, first_nonfinite=jnp.int32(3), total_nonfinite=most, consecutive_nonfinite=most)
    assert counts(watch.update(BAD, state)[1]) == (2**31 - 1, 3, 2**31 - 1, 2**31 - 1)


def test_the_state_can_be_donated():
    watch = optax_health.watch_updates()
    update = jax.jit(watch.update, donate_argnums=1)
    _, state = update(GOOD, watch.init(PARAMS))
    _, state = update(GOOD, state)
    assert counts(state) == (2, -1, 0, 0)


def test_vmap_over_an_ensemble_keeps_a_state_for_each():
    watch = optax_health.watch_updates()
    gradients = jax.tree.map(lambda good, bad: jnp.stack([good, bad]), GOOD, BAD)
    _, state = jax.vmap(watch.update)(gradients, jax.vmap(watch.init)(jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS)))
    np.testing.assert_array_equal(optax_health.read(state).first_nonfinite, [-1, 0])
    assert str(state).startswith("UpdatesHealth(")


def test_an_nnx_optimizer_holds_the_state():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.chain(optax_health.watch_updates(), optax.adam(0.1)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(jnp.sqrt(model(x) * 0)))(model))

    step(model, optimizer, jnp.ones((1, 3)))
    assert (
        str(optax_health.read(optimizer.opt_state))
        == "not finite in 1 of 1 steps, first in step 0, last 1 in a row; last: 8 nan in 8 values"
    )


def test_str_reads_as_a_sentence():
    watch = optax_health.watch_updates()
    assert str(after(watch, GOOD)) == "finite in 1 steps; last: no nan or inf in 5 values, largest 2"
    expected = "not finite in 1 of 3 steps, first in step 1, last 0 in a row; last: no nan or inf in 5 values, largest 2"
    assert str(after(watch, GOOD, BAD, GOOD)) == expected


def test_an_optimizer_without_a_watch_or_with_two_says_what_to_do():
    with pytest.raises(nd.UsageError, match=r"holds 0 states of `watch_updates`"):
        optax_health.read(optax.adam(1e-3).init(PARAMS))
    twice = optax.chain(optax_health.watch_updates(), optax_health.watch_updates())
    with pytest.raises(nd.UsageError, match=r"holds 2 states of `watch_updates`; give `read` a part of it that holds one"):
        optax_health.read(twice.init(PARAMS))


def test_the_module_does_without_optax():
    script = "import sys; sys.modules['optax'] = None; import nandetect as nd; nd.optax_health.watch_updates(); print('fine')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
