"""What `guard` tells and how: faults once, steps skipped too often, and what it lets pass."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guard_steps import failing, params, root_step, rows, train
from jax.experimental import io_callback

import nandetect as nd


def test_warning_says_it_once_and_training_goes_on():
    batches = rows(60)
    batches[25] *= 0
    guarded = nd.guard(jax.jit(root_step), check_every=10, on_find="warn")
    with pytest.warns(nd.NonFiniteWarning, match="in the backward pass of step 25") as caught:
        train(guarded, batches)
        guarded.flush()
    assert len(caught) == 1
    assert [(finding.rule, finding.step) for finding in guarded.findings()] == [("non-finite", 25)]


def test_a_function_is_given_the_report():
    reports, batches = [], rows(30)
    batches[3] *= 0
    train(nd.guard(jax.jit(root_step), check_every=10, on_find=reports.append), batches)
    assert [report.step for report in reports] == [3]


def test_what_jax_itself_stops_at_is_located():
    batches = rows(30)
    batches[11] *= 0
    with jax.debug_nans(True):
        assert failing(jax.jit(root_step), batches, check_every=50).origin.primitive == "div"


def test_while_jax_traces_nothing_is_recorded():
    inner = nd.guard(jax.jit(lambda x: jnp.log(x)))
    assert not np.isfinite(jax.jit(lambda x: inner(x))(0.0))
    assert not np.isfinite(jax.vmap(inner)(jnp.zeros(3))).any()
    inner.flush()


def test_attributes_of_the_step_are_still_there():
    step = jax.jit(root_step)
    guarded: Any = nd.guard(step)
    assert guarded.__name__ == "root_step"
    assert guarded.lower(params(), params(), rows(1)[0]).as_text() == step.lower(params(), params(), rows(1)[0]).as_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(step=3), "guard wants a function, not int: step = nd.guard(step)"),
        (dict(step=abs, check_every=0), "check_every is a number of calls, 1 or more, not 0"),
        (dict(step=abs, keep="much"), "keep is a number of bytes, not 'much'"),
        (dict(step=abs, on_find="stop"), "on_find is 'raise', 'warn' or a function of the report, not 'stop'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_that_mean_nothing_are_named(arguments, said):
    with pytest.raises(nd.UsageError) as caught:
        nd.guard(**arguments)
    assert str(caught.value) == said


def scaled_step(w, scale, x):
    """Dynamic loss scaling: a step whose scaled gradient overflows is skipped and the scale halved."""
    value, grad = jax.value_and_grad(lambda w: jnp.mean((x * w) ** 2) * scale)(w)
    sound = jnp.isfinite(grad).all()
    return jnp.where(sound, w - 0.01 * grad / scale, w), jnp.where(sound, scale, scale / 2), value / scale


def loss_scaling(bad):
    guarded = nd.guard(jax.jit(scaled_step), check_every=20, on_find="warn")
    w, scale = jnp.ones(4), jnp.float32(2.0**15)
    for number in range(200):
        w, scale, _ = guarded(w, scale, jnp.full(4, 1e18 if number in bad else 1.0))
    guarded.flush()
    return guarded.findings()


def test_a_step_that_is_skipped_now_and_then_is_no_fault():
    assert loss_scaling({70}) == []


def test_steps_that_are_skipped_too_often_are_a_finding():
    with pytest.warns(nd.NonFiniteWarning, match="changed nothing"):
        (finding,) = loss_scaling({70, 71, 72, 73, 74})
    assert (finding.rule, finding.step, finding.severity) == ("skipped-steps", 70, "warning")
    assert finding.message.startswith("5 of 80 steps changed nothing, 5 of them running, the first at step 70")


@pytest.mark.parametrize(("bad", "rules"), [({50}, []), (set(range(50, 55)), ["skipped-steps"])], ids=["once", "five running"])
@pytest.mark.filterwarnings("ignore::nandetect.NonFiniteWarning")
def test_apply_if_finite_may_skip(bad, rules):
    optax = pytest.importorskip("optax")
    optimizer = optax.apply_if_finite(optax.adam(1e-2), max_consecutive_errors=10)

    @jax.jit
    def step(w, state, x):
        value, grads = jax.value_and_grad(lambda w: jnp.sum(jnp.log(jnp.sum(x * x)) * w))(w)
        updates, state = optimizer.update(grads, state, w)
        return optax.apply_updates(w, updates), state, value

    guarded = nd.guard(step, check_every=25)
    w = jnp.ones(5)
    state = optimizer.init(w)
    for number in range(150):
        w, state, _ = guarded(w, state, jnp.zeros(3) if number in bad else jnp.ones(3))
    guarded.flush()
    assert [finding.rule for finding in guarded.findings()] == rules


def test_an_infinity_that_is_no_fault_is_looked_into_once():
    @jax.jit
    def step(w, x):
        loss = jnp.sum((w * x) ** 2)
        return w - 0.1 * w * x, jnp.where(loss > 100, loss, jnp.inf)  # the best of the large ones, and there is none

    guarded, w = nd.guard(step, check_every=10), jnp.ones(3)
    for _ in range(100):
        w, _best = guarded(w, jnp.ones(3))
    guarded.flush()
    assert (guarded.findings(), guarded.cost().replays) == ([], 1)


def test_what_was_sound_in_between_is_told_again():
    reports = []
    step = nd.guard(jax.jit(lambda w, x: (0.9 * w, jnp.log(x))), check_every=5, on_find=reports.append)
    w = jnp.ones(3)
    for number in range(60):
        w, _ = step(w, jnp.float32(number % 30 != 7))
    step.flush()
    assert [report.step for report in reports] == [7, 37]


def test_a_step_whose_progress_bar_hands_back_its_counter_is_located_without_moving_the_bar():
    shown = []

    def show(i):
        shown.append(int(i))
        return i

    def body(i, x):
        i = io_callback(show, jax.ShapeDtypeStruct((), jnp.int32), i)
        return x + 0.25 + 0.0 * jnp.arccos(x) + 0.0 * i

    guarded = nd.guard(jax.jit(lambda x: jax.lax.fori_loop(0, 8, body, x)))
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.zeros(3))
        guarded.flush()
    report = caught.value.report
    assert (report.origin.primitive, report.origin.context, shown) == ("acos", (("scan", 5),), list(range(8)))
    assert report.notes[-1] == "an io_callback of the step was not called again: in the replay it gave back what it was given, or zeros"
