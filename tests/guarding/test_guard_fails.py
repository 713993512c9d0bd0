"""Whatever fails in nandetect itself, the program gets its results, its errors and its end."""

import importlib
import traceback
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd

# Where a fault is seen before this fails, it is told all the same: found, not located.
LATE = [
    "guarding.replay.relocate",
    "guarding.replay.bad_leaves",
    "guarding.replay.leaves_made",
    "guarding.replay.auxiliary",
    "guarding.replay.Replay.run",
    "guarding.faults.Faults.judge",
    "guarding.aside.numbered",
    "program.sources.frame_at",
    "fixing.locate.diagnose",
    "fixing.locate.trace",
    "locating.reporting.report",
    "interpret.callbacks.recorded",
    "effects.replay_settings",
    "effects.muted_effects",
    "guarding.schedule.Schedule.looked",
    "guarding.faults.Faults.may_wait",
    "render.terminal.text",
]
# Where looking or recording fails, nothing is known to be bad; that it was not looked at is a note.
EARLY = [
    "guarding.faults.bad_leaves",
    "guarding.recorder.links",
    "guarding.recorder.Recorder.enter",
    "guarding.recorder.Recorder.leave",
    "guarding.recorder.Recorder.add",
    "guarding.watch.calls_like",
    "guarding.watch.Watch._end_quick",
    "guarding.skips.Skips.suspects",
    "guarding.motion.Motion.look",
    "program.sources.caller",
    "guarding.recorder.flatten",
    "guarding.budget.bound",
    "guarding.schedule.Schedule.is_due",
    "compat.outside_of_traces",
    "guarding.guarded_step.Watch",
]


def fail(monkeypatch, door, error):
    """Let an inner function raise whenever it is called."""
    module, name = f"nandetect.{door}".rsplit(".", 1)
    try:
        owner = importlib.import_module(module)
    except ImportError:
        module, kind = module.rsplit(".", 1)
        owner = getattr(importlib.import_module(module), kind)

    def failing(*args, **kwargs):
        raise error("injected")

    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, failing)


@jax.jit
def step(w, x):
    return w - 0.125, jnp.log(x).sum()


def train(guarded, bad):
    w = jnp.ones(3)
    for number in range(10):
        w, _ = guarded(w, jnp.full(3, -1.0 if bad and number == 6 else 1.0))
    guarded.flush()
    guarded.cost()
    return np.asarray(w).tolist()


@pytest.mark.parametrize("error", [RecursionError, KeyError])
@pytest.mark.parametrize("bad", [False, True], ids=["sound", "bad"])
@pytest.mark.parametrize("door", [*EARLY, *LATE])
def test_what_fails_in_nandetect_does_not_reach_the_program(monkeypatch, door, bad, error):
    guarded = nd.guard(step, check_every=4, on_find="warn")
    fail(monkeypatch, door, error)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert train(guarded, bad) == [-0.25] * 3
    told = [warning for warning in caught if issubclass(warning.category, nd.NonFiniteWarning)]
    severities = {finding.severity for finding in guarded.findings()}
    assert (bool(told), "error" in severities) == (bad and door in LATE,) * 2
    if door in EARLY:
        assert severities == {"note"}


@pytest.mark.parametrize("door", LATE)
def test_a_fault_that_cannot_be_located_is_raised_all_the_same(monkeypatch, door):
    guarded = nd.guard(step, check_every=4)
    fail(monkeypatch, door, RecursionError)
    with pytest.raises(nd.NonFiniteError) as caught:
        train(guarded, bad=True)
    assert "made nan" in str(caught.value) or "was nan" in str(caught.value)


def test_what_the_program_s_own_function_raises_is_raised():
    def stop(report):
        raise KeyError("the program's own")

    with pytest.raises(KeyError, match="the program's own"):
        train(nd.guard(step, check_every=4, on_find=stop), bad=True)


def test_a_warning_stands_at_the_line_of_the_program():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(nd.guard(step, check_every=4, on_find="warn"), bad=True)
        train(nd.guard(step, check_every=100, on_find="warn"), bad=True)
        train(nd.guard(lambda w, x: step(w, x), on_find="warn"), bad=True)
    assert [warning.filename for warning in caught] == [__file__] * 3


@pytest.mark.parametrize("check_every", [None, 100])
def test_a_traceback_through_a_guarded_step_has_the_program_s_frames_alone(check_every):
    error = RuntimeError("the program's own")

    def inner(x):
        if x.shape == (2,):
            raise error
        return x

    guarded, w = nd.guard(jax.jit(inner), check_every=check_every), jnp.zeros(3)
    for _ in range(20):
        w = guarded(w)
    with pytest.raises(RuntimeError) as caught:
        guarded(jnp.zeros(2))
    frames = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not [file for file in frames if "/nandetect/" in file and "/tests/" not in file]
    assert frames.count(__file__) == 2
