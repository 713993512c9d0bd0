"""A guard, and a watch over a whole program, warn of a NaN that steered what is finite: at the end, and never as a fault."""

from __future__ import annotations

import warnings

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nandetect as nd
from nandetect.guarding import steered
from nandetect.program.trace import trace
from nandetect.run.everywhere import watching


def objective(x):
    return x * x - jnp.log(1.0 - x)  # <-- origin


def search(x):
    return x + lax.while_loop(lambda step: ~(objective(x + step) < objective(x) + 0.5), lambda step: step / 2, 4.0)


LINE, END = objective.__code__.co_firstlineno + 1, search.__code__.co_firstlineno + 1
SAID = (
    f"`log` at test_guard_steered.py:{LINE} made nan in step 0, and nan decided the end of the loop at line {END}: "
    "the results are finite, and not what was meant"
)


def test_a_guard_warns_of_what_a_nan_steered_when_it_is_flushed_and_once():
    step = nd.guard(jax.jit(search))
    assert jnp.isfinite(step(jnp.float32(0.1)))
    with pytest.warns(UserWarning) as warned:
        step.flush()
    step(jnp.float32(0.1))
    step.flush()
    assert [str(warning.message) for warning in warned] == [SAID]
    (finding,) = step.findings()
    assert finding.report is not None
    assert (finding.severity, finding.message, finding.report.origin.primitive) == ("warning", SAID, "log")


def test_nothing_is_asked_where_asking_would_take_too_long(monkeypatch):
    monkeypatch.setattr("nandetect.guarding.guarded_step.LEAST", 0.0)
    # One of its own, so that it is compiled here and now.
    step = nd.guard(jax.jit(lambda x: search(x)))
    step(jnp.float32(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step.flush()
    assert step.findings() == []


def test_a_step_in_which_no_number_decides_is_asked_once_however_often_it_is_flushed(monkeypatch):
    asked = []
    monkeypatch.setattr(steered, "trace", lambda *given: asked.append(given) or trace(*given))
    step = nd.guard(jax.jit(lambda x: x / 2.0))
    for _ in range(3):
        step(jnp.float32(1))
        step.flush()
    assert len(asked) == 1


@pytest.mark.parametrize("is_jitted", [True, False])
def test_a_program_that_a_nan_steered_is_warned_of_at_its_end(is_jitted):
    told = []
    with watching(told.append) as everywhere:
        found = (jax.jit(search) if is_jitted else search)(jnp.float32(0.1))
        assert np.isfinite(np.asarray(found))
        everywhere.flush()
        findings = everywhere.steered(1.0)
    assert told == []
    assert [(finding.severity, finding.message.replace(" in step 0", "")) for finding in findings] == [
        ("warning", SAID.replace(" in step 0", ""))
    ]


def test_a_function_that_is_gone_is_asked_of_too():
    with watching(lambda report: None) as everywhere:

        def solve():
            return jax.jit(search)(jnp.float32(0.1))

        solve()
        everywhere.flush()
        findings = everywhere.steered(1.0)
    assert [finding.message for finding in findings] == [SAID]


def test_what_is_kept_to_be_asked_of_is_small(monkeypatch):
    monkeypatch.setattr(steered, "_KEPT", 3)
    step = nd.guard(jax.jit(search))
    step(jnp.float32(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step.flush()
    assert step.findings() == []


@pytest.mark.parametrize(("call", "is_asked"), [(jax.pure_callback, True), (jax.experimental.io_callback, False)])
def test_beside_what_may_be_called_back_to_any_number_of_times_it_is_asked(call, is_asked):
    def refused(x):
        raise AssertionError

    def checked(x):
        found = search(x)
        return lax.cond(jnp.isfinite(found), lambda x: x, lambda x: call(refused, jax.ShapeDtypeStruct((), jnp.float32), x), found)

    report = steered.asked(trace(jax.jit(checked), (jnp.float32(0.1),), {}), 100.0)
    assert (report is not None) == is_asked
