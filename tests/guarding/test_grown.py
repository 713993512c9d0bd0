"""Under guard a cause that is part of the state is told with what it was before the updates that were run again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import nandetect as nd


def test_a_weight_that_grew_is_told_with_what_it_was():
    @jax.jit
    def step(w, x):
        return 1.5 * w * w, jnp.exp(w + x).sum()

    guarded = nd.guard(step)
    with pytest.raises(nd.NonFiniteError) as raised:
        w = jnp.array([0.1, 1.1])
        for _ in range(40):
            w, _ = guarded(w, jnp.zeros(2))
        guarded.flush()
    # In float64: 1.1 becomes 1.815, 4.941, 36.62 and 2,012, of which the last has no exponential in float32.
    past = [1.1]
    while past[-1] < 89:
        past.append(1.5 * past[-1] ** 2)
    cause = raised.value.report.cause[-1]
    assert (cause.argument, cause.index) == ("w", (1,))
    now, updates, was = f"{past[-1]:.4g}", cause.reason.split()[4], cause.reason.split()[-1]
    assert cause.reason == f"{now} in the input, {updates} updates before it was {was}"
    assert float(was) == pytest.approx(past[-1 - int(updates)], rel=1e-3)


def test_what_is_no_state_is_told_as_it_was_given():
    @jax.jit
    def step(w, x):
        return w + 1.0, jnp.exp(x * 2.0)

    guarded = nd.guard(step)
    with pytest.raises(nd.NonFiniteError) as raised:
        w = jnp.zeros(())
        for number in range(12):
            w, _ = guarded(w, jnp.float32(10.0 * number))
        guarded.flush()
    assert raised.value.report.cause[-1].reason == "50 in the input"
