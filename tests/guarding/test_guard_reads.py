"""What guard reads of a program's arrays: where a whole program is watched, it must not pass for the program's own reading."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect import compat
from nandetect.guarding.working import working
from nandetect.run import buffers


@pytest.fixture
def seen(monkeypatch):
    """What is read or copied of arrays, in any way that watching a whole program would see, while nandetect does not say that it works."""
    seen = []

    def spied(original):
        def spy(*args, **kwargs):
            if not working.now:
                seen.append(original)
            return original(*args, **kwargs)

        return spy

    array = compat.array_type()
    for owner, names in ((array, ("__array__", "__float__", "__getitem__", "item")), (jax, ("device_put",))):
        for name in names:
            monkeypatch.setattr(owner, name, spied(getattr(owner, name)))
    with buffers.watched(seen.append, working):
        yield seen


def placeholders(state, x):
    """A step whose state begins as NaN where nothing is known yet."""
    return {"w": state["w"] + x, "best": state["best"]}, x.sum()


def proposes(state, x):
    """A step with a result that is not finite and stands beside the state."""
    return {"w": state["w"] + x, "best": state["w"]}, jnp.log(x - 1.0)


def raises(state, x):
    return {"w": jnp.log(state["w"] - x), "best": state["w"]}, x.sum()


def skips(state, x):
    value = jnp.log(x - 4.0).sum()
    return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(value), leaf + 1.0, leaf), state), value


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("check_every", [None, 1, 3])
@pytest.mark.parametrize("step", [placeholders, proposes, raises, skips])
def test_all_that_is_read_of_arrays_is_read_while_nandetect_is_at_work(seen, step, check_every, donate):
    guarded = nd.guard(jax.jit(step, donate_argnums=0 if donate else ()), check_every=check_every, on_find=lambda report: None)
    state = {"w": jnp.ones(3), "best": jnp.full(3, np.nan)}
    for number in range(8):
        state, _ = guarded(state, jnp.full(3, number, jnp.float32))
    guarded.flush()
    assert seen == []


def test_a_call_that_raises_is_asked_about_while_nandetect_is_at_work(seen):
    def step(x):
        return jnp.log(x)

    guarded = nd.guard(jax.jit(step))
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        guarded(-jnp.ones(3))
    assert [read for read in seen if getattr(read, "__name__", "") == "device_put"] == []
