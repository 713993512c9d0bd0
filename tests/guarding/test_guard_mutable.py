"""A step that is given mutable arrays (`jax.new_ref`): what it writes into them is looked at as what it returns is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.run.everywhere import watching

new_ref: Any = getattr(jax, "new_ref", None)
pytestmark = pytest.mark.skipif(new_ref is None, reason="this JAX has no jax.new_ref")


def descend(w, x):
    slope = jax.grad(lambda w: jnp.sum((w - 1.0) ** 2))(w[...])
    w[...] -= 0.1 * slope / jnp.sqrt(x)  # <-- origin
    return jnp.sum(slope)


def trained(step, inputs, w):
    return [float(step(w, x)) for x in inputs]


def is_at_the_origin(report):
    return report.origin.source is not None and report.origin.source.code.endswith("# <-- origin")


INPUTS = [jnp.full(4, 2.0), jnp.full(4, 3.0), jnp.array([1.0, 0.0, 1.0, 1.0])]


def test_results_and_arrays_are_as_without_a_guard():
    plain, guarded = new_ref(jnp.arange(4.0)), new_ref(jnp.arange(4.0))
    guard = nd.guard(jax.jit(descend))
    assert trained(jax.jit(descend), INPUTS[:2] * 10, plain) == trained(guard, INPUTS[:2] * 10, guarded)
    guard.flush()
    np.testing.assert_array_equal(plain[...], guarded[...])


def test_what_is_written_into_one_is_told_at_its_step():
    told = []
    step = nd.guard(jax.jit(descend), on_find=told.append)
    w = new_ref(jnp.arange(4.0))
    trained(step, INPUTS[:3], w)
    step.flush()
    (report,) = told
    assert is_at_the_origin(report)
    assert (report.origin.primitive, report.step, report.symptoms, report.reproduced) == ("div", 2, ("w",), True)


def test_one_that_two_steps_write_into_is_followed_from_one_to_the_other():
    def decay(w):
        w[...] *= 0.5
        return jnp.max(jnp.abs(w[...]))

    told = []
    with watching(told.append) as everywhere:
        step, decayed, w = jax.jit(descend), jax.jit(decay), new_ref(jnp.full(4, 3.0))
        for x in INPUTS[:3]:
            step(w, x)
            decayed(w)
        everywhere.flush()
    (report, *_) = told
    assert is_at_the_origin(report) and (report.step, report.reproduced) == (2, True)


def test_those_within_a_pytree_are_called_by_their_paths():
    told = []

    @jax.jit
    def step(state, x):
        state["weights"][0][...] += jnp.log(x)  # <-- origin
        return state["count"] + 1

    guard = nd.guard(step, on_find=told.append)
    guard({"weights": [new_ref(jnp.ones(2))], "count": 0}, jnp.array([1.0, 0.0]))
    guard.flush()
    (report,) = told
    assert is_at_the_origin(report) and report.symptoms == ("state['weights'][0]",)


def test_where_a_whole_program_is_watched_what_the_program_itself_writes_is_seen():
    told = []
    with watching(told.append) as everywhere:
        step, w = jax.jit(descend), new_ref(jnp.arange(4.0))
        for x in INPUTS[:2] * 3:
            step(w, x)
            w[...] = w[...] * 0.9
        everywhere.flush()
        assert told == []
        w[...] = w[...] + 1.0
        float(step(w, INPUTS[2]))
        everywhere.flush()
    (report, *_) = told
    assert is_at_the_origin(report) and report.reproduced


def test_locate_leaves_it_as_it_was():
    w = new_ref(jnp.arange(4.0))
    report = nd.locate(jax.jit(descend), w, INPUTS[2])
    assert report is not None and is_at_the_origin(report) and report.symptoms == ("w",)
    np.testing.assert_array_equal(w[...], np.arange(4.0))
    assert nd.locate(jax.jit(descend), w, INPUTS[0]) is None
