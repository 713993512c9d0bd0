"""`guard`: the same results, the first bad call named exactly however seldom one looks, and little kept for it."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from guard_steps import failing, params, root_step, rows, second_moment_step, train

import nandetect as nd


def test_results_are_the_same_to_the_bit():
    plain, guarded = jax.jit(root_step), nd.guard(jax.jit(root_step))
    for one, other in zip(jax.tree.leaves(train(plain, rows(40))), jax.tree.leaves(train(guarded, rows(40))), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("fault", [None, 30])
def test_the_function_is_traced_once(fault):
    traced = []

    @jax.jit
    def step(*args):
        traced.append(1)
        return root_step(*args)

    batches = rows(60)
    if fault is None:
        train(nd.guard(step, check_every=20), batches)
    else:
        batches[fault] *= 0
        failing(step, batches, check_every=20)
    assert len(traced) == 1


def test_donated_buffers_are_still_given_up():
    guarded = nd.guard(jax.jit(root_step, donate_argnums=(0, 1)), check_every=5)
    state = params(), jax.tree.map(jnp.zeros_like, params())
    for x in rows(12):
        before = state
        *state, _ = guarded(*state, x)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))


@pytest.mark.parametrize("donate", [(), (0, 1)], ids=["kept", "donated"])
@pytest.mark.parametrize("kind", ["gradient", "optimizer"])
@pytest.mark.parametrize("fault", [0, 1, 49, 50, 51, 77, 149])
def test_first_bad_step_is_exact_with_looks_every_fifty(donate, kind, fault):
    batches = rows(150)
    batches[fault] = batches[fault] * 0 if kind == "gradient" else np.full_like(batches[fault], 1e30)
    step = jax.jit(root_step if kind == "gradient" else second_moment_step, donate_argnums=donate)
    report = failing(step, batches, check_every=50)
    assert report.step == fault
    assert (report.origin.primitive, report.origin.phase) == {"gradient": ("div", "backward"), "optimizer": ("mul", "update")}[kind]


@pytest.mark.parametrize("fault", [3, 400, 1111])
def test_first_bad_step_is_exact_where_the_guard_decides_when_to_look(fault):
    batches = rows(1200)
    batches[fault] *= 0
    assert failing(jax.jit(root_step), [jnp.asarray(batch) for batch in batches]).step == fault


@pytest.mark.parametrize("donate", [(), ("state",)], ids=["kept", "donated"])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("fault", [0, 1, 2, 48, 77, 99])
def test_first_bad_step_is_exact_where_the_arguments_are_put_together_anew(donate, kind, fault):
    def step(*, state, batch, scale):
        w, v = state
        *new, value = root_step(w, v, batch["x"] * scale)
        return {"state": tuple(new), "loss": value, **({"few": jnp.mean(batch["x"])} if len(batch["x"]) < 8 else {})}

    batches = rows(120)
    batches[fault] *= 0
    guarded = nd.guard(jax.jit(step, donate_argnames=donate), check_every=50)
    state = params(), jax.tree.map(jnp.zeros_like, params())
    with pytest.raises(nd.NonFiniteError) as caught:
        for number, x in enumerate(batches):
            # Now and then a smaller batch, of which more is returned.
            x = x[:5] if number % 30 == 29 else x
            state = guarded(state=list(state), batch={"x": kind(x)}, scale=1.0 + number / 100)["state"]
        guarded.flush()
    assert caught.value.report.step == fault
    assert (caught.value.report.origin.primitive, caught.value.report.origin.phase) == ("div", "backward")
    assert guarded.cost().calls >= fault


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("fault", [1, 28, 29, 30, 59, 77])
def test_a_step_may_return_more_for_some_batches(kind, fault):
    def step(w, x):
        loss = jnp.mean(jnp.log(x @ w))
        return kind((w - 0.01 * w, loss) if len(x) == 8 else (loss, jnp.max(x)) if len(x) == 5 else (loss,))

    guarded, w = nd.guard(jax.jit(step), check_every=50), jnp.ones(4)
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(120):
            size = {29: 5, 28: 3}.get(number % 30, 8)
            x = jnp.full((size, 4), 0.0 if number == fault else 1.0)
            out = guarded(w, x)
            w = out[0] if size == 8 else w
        guarded.flush()
    assert (caught.value.report.step, caught.value.report.origin.primitive) == (fault, "log")


def test_one_bad_metric_among_good_ones_is_found():
    step = nd.guard(jax.jit(lambda w, x: (w * 0.9, jnp.log(jnp.sum(x * x)))), check_every=50)
    w = jnp.ones(100)
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(100):
            w, _ = step(w, jnp.zeros(3) if number == 33 else jnp.ones(3))
    assert (caught.value.report.step, caught.value.report.origin.primitive) == (33, "log")


def test_a_best_loss_that_starts_at_inf_is_no_fault():
    step = nd.guard(jax.jit(lambda best, x: jnp.minimum(best, jnp.sum(x) + jnp.inf)), check_every=2)
    best = jnp.float32(jnp.inf)
    for _ in range(10):
        best = step(best, jnp.ones(3))
    step.flush()


def test_kept_is_one_state_and_the_batches():
    state = params(200), jax.tree.map(jnp.zeros_like, params(200))
    one_state = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    guarded = nd.guard(jax.jit(root_step), check_every=50)
    batches = rows(50, 200)
    train(guarded, batches[:49], state)
    batches_size = 49 * batches[0].nbytes
    assert guarded.cost().kept_bytes == one_state + batches_size


def test_the_bound_is_kept_by_looking_earlier():
    batches = rows(100, 200)
    guarded = nd.guard(jax.jit(root_step), check_every=100, keep=20 * batches[0].nbytes)
    state = train(guarded, batches, (params(200), jax.tree.map(jnp.zeros_like, params(200))))
    assert guarded.cost().most_bytes <= guarded.cost().bound_bytes + batches[0].nbytes
    assert guarded.cost().looks >= 5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("check_every", [None, 1, 3])
@pytest.mark.parametrize("zero", [0, 0.0, np.float32(0), np.zeros(2, np.float32)], ids=["int", "float", "numpy number", "numpy array"])
@pytest.mark.parametrize("fault", [1, 4])
def test_a_donated_state_that_begins_with_a_number_is_kept(zero, check_every, fault):
    @partial(jax.jit, donate_argnums=0)
    def step(state, t):
        y = jnp.log(jnp.tanh(state["y"]) + 2.0 - 4.0 * t)
        return {"y": y, "count": state["count"] + 1}, jnp.sum(y)

    guarded, state = nd.guard(step, check_every=check_every), {"y": jnp.ones(4), "count": zero}
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(7):
            state, _ = guarded(state, jnp.float32(number == fault))
        guarded.flush()
    report = caught.value.report
    assert (report.step, report.origin.primitive, report.reproduced) == (fault, "log", True)


def test_a_donated_state_that_is_too_large_to_keep_is_said():
    batches = rows(10)
    batches[4] *= 0
    report = failing(jax.jit(root_step, donate_argnums=(0, 1)), batches, check_every=10, keep=10)
    assert not report.reproduced
    assert str(report).startswith("error: a result of step 4 was nan, and what made it was not found")
    assert "keep" in report.notes[-1]


def test_static_and_keyword_arguments_and_keys():
    @partial(jax.jit, static_argnums=0, static_argnames="scale")
    def step(power, w, key, *, x, scale=1):
        return w + jax.random.normal(key, w.shape) * 1e-3, jnp.log(jnp.sum(x**power) * scale)

    guarded, w, keys = nd.guard(step, check_every=8), jnp.ones(4), jax.random.split(jax.random.key(0), 20)
    with pytest.raises(nd.NonFiniteError) as caught:
        for number, key in enumerate(keys):
            w, _ = guarded(2, w, key, x=jnp.zeros(3) if number == 13 else jnp.ones(3), scale=2)
        guarded.flush()
    assert caught.value.report.step == 13


def test_a_numpy_buffer_that_is_filled_anew():
    batches, buffer = rows(60, 400), np.empty((8, 400), np.float32)
    guarded = nd.guard(jax.jit(root_step), check_every=50)
    state = params(400), jax.tree.map(jnp.zeros_like, params(400))
    with pytest.raises(nd.NonFiniteError) as caught:
        for number, x in enumerate(batches):
            buffer[:] = x * (number != 41)
            *state, _ = guarded(*state, buffer)
            # JAX itself may still be reading the buffer.
            jax.block_until_ready(state)
        guarded.flush()
    assert caught.value.report.step == 41


@pytest.mark.parametrize("fault", [7, 36])
def test_a_dict_that_is_changed_in_place_between_the_calls(fault):
    step = jax.jit(lambda w, x: (jax.tree.map(lambda w: w * 0.9, w), jnp.mean(w["b"]) * jnp.mean(x)))
    guarded, w = nd.guard(step, check_every=30), {"a": jnp.ones(50), "b": jnp.ones(40)}
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(60):
            w, _ = guarded(w, jnp.ones(3))
            if number == fault:
                w["b"] = w["b"].at[2].set(jnp.nan)
        guarded.flush()
    report = caught.value.report
    assert (report.step, report.origin.primitive) == (fault + 1, "<input>")
    assert report.origin.argument is not None and report.origin.argument.startswith("w")


@pytest.mark.parametrize("fault", [7, 36])
def test_a_state_whose_memory_is_overwritten_between_the_calls_is_said_to_be(fault):
    guarded, w = nd.guard(jax.jit(lambda w, x: (w * 0.9, jnp.mean(w) * jnp.mean(x))), check_every=30), jnp.ones(50)
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(60):
            w, _ = guarded(w, jnp.ones(3))
            if number == fault:
                # As another library may that was given the array's memory.
                memory = ctypes.cast(w.block_until_ready().unsafe_buffer_pointer(), ctypes.POINTER(ctypes.c_float))
                memory[2] = np.nan
        guarded.flush()
    report = caught.value.report
    assert (report.step, report.origin.argument, report.origin.reason) == (fault + 1, "w", "changed between the calls")
    assert report.notes == ("the call before returned it finite, so it was changed in place after that, outside of the step",)


def test_the_step_of_a_whole_training_loop_is_its_call_and_the_context_has_the_iteration():
    batches = np.stack(rows(30))
    batches[17] *= 0

    @jax.jit
    def training(state, batches):
        return jax.lax.scan(lambda state, x: (root_step(state[0], state[1], x)[:2], root_step(state[0], state[1], x)[2]), state, batches)

    guarded = nd.guard(training)
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded((params(), jax.tree.map(jnp.zeros_like, params())), batches)
        guarded.flush()
    report = caught.value.report
    assert (report.step, report.origin.context) == (0, (("scan", 17),))


def test_effects_happen_once(capsys):
    logged = []

    @jax.jit
    def step(w, x):
        jax.debug.print("sum {}", jnp.sum(x))
        jax.experimental.io_callback(lambda value: logged.append(float(value)), None, jnp.sum(x))
        return w * jnp.log(jnp.sum(x)) * 0 + w

    guarded, w = nd.guard(step, check_every=10), jnp.ones(3)
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(20):
            w = guarded(w, jnp.zeros(3) if number == 7 else jnp.ones(3))
    jax.effects_barrier()
    assert caught.value.report.step == 7
    assert len(logged) == 10
    assert capsys.readouterr().out.count("sum") == 10


class State(NamedTuple):
    w: jax.Array
    number: jax.Array


def test_a_state_that_is_a_named_tuple_goes_round_as_one():
    step = nd.guard(jax.jit(lambda state, x: State(0.9 * state.w + 0 * jnp.log(x), state.number + 1)), check_every=20)
    state = State(jnp.ones(3), jnp.int32(0))
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(100):
            state = step(state, jnp.float32(number != 57))
    assert caught.value.report.step == 57
