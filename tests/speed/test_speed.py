"""`audit_speed`: what a step on the user's own arguments loses, against programs whose price is known from elsewhere."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.errors import UsageError
from nandetect.speed import static_checks

# Enough for what differs by much.
SECONDS = 0.2
MARK = "# <-- here"


def line_of(mark: str = MARK) -> int:
    """The one line of this file that ends in the mark."""
    (at,) = [number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.rstrip().endswith(mark)]
    return at


def loss(params, x, y):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x @ w + b), -1))


def train(params, x, y):
    value, grads = jax.value_and_grad(loss)(params, x, y)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), value


def arguments(*sizes: int, samples: int = 16, dtype: type = np.float32):
    rng = np.random.default_rng(0)
    params = [(jnp.asarray(rng.standard_normal((m, n)) / m, dtype), jnp.zeros(n, dtype)) for m, n in itertools.pairwise(sizes)]
    return params, jnp.ones((samples, sizes[0]), jnp.float32), jnp.asarray(np.eye(sizes[-1])[np.arange(samples) % sizes[-1]], jnp.float32)


def rules(findings):
    return [finding.rule for finding in findings]


def test_a_step_that_is_not_jitted_is_told_with_what_jit_gives():
    """A step of some seventy operations; each costs tens of microseconds to start, a compiled step as much in all."""
    given = arguments(8, 16, 4)
    (finding,) = nd.audit_speed(train, *given, seconds=SECONDS)
    assert (finding.rule, finding.severity, finding.help) == ("not-jitted", "warning", "train = jax.jit(train)")
    began = time.perf_counter()
    jax.block_until_ready(train(*given))
    assert finding.measured / finding.expected > 3
    assert finding.measured * 1e-3 < 10 * (time.perf_counter() - began)


def test_a_sound_step_is_told_nothing_of():
    assert nd.audit_speed(jax.jit(train), *arguments(8, 16, 4), seconds=SECONDS) == []


def test_a_single_operation_is_no_step():
    assert nd.audit_speed(lambda x: x * 2, jnp.ones(3), seconds=SECONDS) == []


def wait(x):
    time.sleep(2e-3)
    return np.asarray(x)


def test_a_callback_costs_what_it_takes():
    @jax.jit
    def step(x):
        x = jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)  # <-- here
        return x * 2

    (finding,) = nd.audit_speed(step, jnp.ones(3), seconds=SECONDS)
    assert (finding.rule, finding.severity) == ("host-transfer", "warning")
    assert finding.measured - finding.expected >= 2.0
    assert "`step` calls back to the host in every step: `jax.pure_callback(wait, " in finding.message
    assert f"test_speed.py:{line_of()} takes " in finding.message


def test_what_a_step_prints_is_not_printed_again(capsys):
    @jax.jit
    def step(x):
        jax.debug.print("x {}", x)
        return x * 2

    findings = nd.audit_speed(step, jnp.ones(3), seconds=SECONDS)
    jax.effects_barrier()
    assert capsys.readouterr().out == ""
    assert all(finding.rule == "host-transfer" for finding in findings)


def test_an_effect_whose_answer_is_needed_is_not_repeated():
    step = jax.jit(lambda x: jax.experimental.io_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x) * 2)
    with pytest.raises(UsageError, match="needs what its io_callback returns"):
        nd.audit_speed(step, jnp.ones(3))


def test_parameters_in_float64_widen_the_data(x64):
    params, x, y = arguments(256, 400, 400, 10, samples=200, dtype=np.float64)
    # Other work on the machine can hide, in one measurement, what float32 would gain.
    measured = (nd.audit_speed(jax.jit(train), params, x, y, seconds=3 * SECONDS) for _ in range(3))
    (finding,) = next(filter(None, measured))
    assert (finding.rule, finding.severity, finding.cause) == ("x64", "warning", "jax_enable_x64 is on")
    assert "where `params[0][0]` and 5 more are float64" in finding.message
    # Half as many numbers fit into a register.
    assert finding.measured / finding.expected > 1.2


@pytest.mark.parametrize("differentiate", [False, True])
def test_a_step_that_closes_over_a_wide_numpy_array_still_runs_after_it_was_audited(x64, differentiate):
    scale = np.ones((8, 8))

    def loss(w):
        return jnp.tanh(w * scale).sum()

    step = jax.jit(jax.grad(loss) if differentiate else loss)
    w = jnp.ones((8, 8), jnp.float32)
    nd.audit_speed(step, w)
    expected = np.full((8, 8), 1 - np.tanh(1.0) ** 2) if differentiate else 64 * np.tanh(1.0)
    for function in (step, jax.jit(jax.grad(loss) if differentiate else loss)):
        assert np.allclose(function(w), expected, rtol=1e-6)


def test_float32_throughout_is_sound_under_x64_and_so_is_float64(x64):
    params, x, y = arguments(8, 16, 4)
    assert nd.audit_speed(jax.jit(train), params, x, y, seconds=SECONDS) == []
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, x, y))
    assert nd.audit_speed(jax.jit(train), *wide, seconds=SECONDS) == []


def test_who_writes_float64_wants_it(x64):
    jaxpr = jax.make_jaxpr(lambda x: jnp.sum(x.astype(jnp.float64)) + jnp.sum(x * np.ones(3)))(jnp.ones(3, jnp.float32)).jaxpr
    assert len(static_checks.widened(jaxpr)) == 1


def test_a_state_that_is_not_donated_is_there_twice():
    @jax.jit
    def step(w, rate):
        return w - rate * w

    (finding,) = nd.audit_speed(step, jnp.ones(1_000_000), jnp.float32(0.1), seconds=SECONDS)
    assert (finding.rule, finding.severity, finding.layer) == ("not-donated", "note", "w")
    # A float32 of 4 bytes each.
    assert (finding.measured, finding.expected) == pytest.approx((8.0, 4.0), abs=0.01)
    assert finding.help == "step = jax.jit(step, donate_argnums=0), if nothing else uses the old state"


def test_the_companions_of_the_parameters_are_donated_with_them():
    @jax.jit
    def step(params, momentum, grads):
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
        return jax.tree.map(lambda p, m: p - 0.1 * m, params, momentum), momentum

    big = {"w": jnp.ones((1000, 500))}
    (finding,) = nd.audit_speed(step, big, big, big, seconds=SECONDS)
    assert finding.message.startswith("`step` keeps the old `params` and `momentum` beside the new")
    assert "donate_argnums=(0, 1)" in finding.help


@pytest.mark.parametrize(
    "step",
    [
        jax.jit(train, donate_argnums=0),
        jax.jit(jax.value_and_grad(loss)),
        jax.jit(jax.grad(lambda params, x, y: loss(params, x, y) + sum(jnp.sum(w**2) for w, _ in params))),
    ],
    ids=["donated already", "gradients", "regularised gradients"],
)
def test_what_is_no_state_or_is_donated_is_left_alone(step):
    assert "not-donated" not in rules(nd.audit_speed(step, *arguments(500, 800, 4), seconds=SECONDS))


def test_the_arguments_are_still_there_afterwards():
    params, x, y = arguments(8, 16, 4)
    nd.audit_speed(jax.jit(train, donate_argnums=0), params, x, y, seconds=SECONDS)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params))


def test_static_arguments_stay_what_they_are():
    def step(params, x, y, mode):
        return train(params, x, y) if mode == "train" else params

    given = arguments(8, 16, 4)
    assert nd.audit_speed(jax.jit(step, static_argnums=3), *given, "train", seconds=SECONDS) == []
    assert nd.audit_speed(jax.jit(step, static_argnames="mode"), *given, mode="train", seconds=SECONDS) == []
    assert rules(nd.audit_speed(step, *given, mode="train", seconds=SECONDS)) == ["not-jitted"]


def test_a_model_of_flax_that_its_step_changes_in_place():
    nnx = pytest.importorskip("flax.nnx")

    def step(model, x):
        grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(model, nnx.Param), grads))

    model, x = nnx.Linear(4, 3, rngs=nnx.Rngs(0)), jnp.ones((2, 4))
    before = np.asarray(model.kernel[...])
    assert nd.audit_speed(nnx.jit(step), model, x, seconds=SECONDS) == []
    assert rules(nd.audit_speed(step, model, x, seconds=SECONDS)) == ["not-jitted"]
    np.testing.assert_array_equal(before, np.asarray(model.kernel[...]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seconds": 0}, "seconds is a time above 0, not 0"),
        ({"also": [jnp.ones(3)]}, "also is a list of the positional arguments of further calls, each a tuple: also=[(params, batch), ...]"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(options, said):
    with pytest.raises(UsageError) as told:
        nd.audit_speed(jax.jit(lambda x: x), jnp.ones(3), **options)
    assert str(told.value) == said


def test_a_step_that_cannot_be_traced_is_said_to_be_so():
    with pytest.raises(UsageError, match="cannot be traced with these arguments"):
        nd.audit_speed(lambda x: float(x) * 2, jnp.float32(1))
