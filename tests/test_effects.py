"""What is changed in JAX for a replay is as it was afterwards."""

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import io_callback

import nandetect as nd
from nandetect import effects


def in_a_thread_of_its_own(test):
    """In a thread that ever left `jax.debug_nans`, as other tests do, JAX (0.8 and later) does not check what compiled functions return."""

    @functools.wraps(test)
    def tested(*args, **kwargs):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(test, *args, **kwargs).result()

    return tested


def root(x):
    return jnp.sqrt(x) + 1


@pytest.mark.parametrize("looks", [nd.locate, lambda f, x: nd.guard(f, on_find=lambda report: None)(x)], ids=["locate", "guard"])
@pytest.mark.parametrize("jitted", [False, True])
@in_a_thread_of_its_own
def test_jax_s_own_check_sees_what_a_located_function_returns(looks, jitted):
    x = jnp.array([-1.0])
    step = jax.jit(root) if jitted else root
    looks(step, x)
    jax.config.update("jax_debug_nans", True)
    try:
        for function in (step, jax.jit(root), jnp.sqrt, jnp.log):
            with pytest.raises(FloatingPointError):
                function(x)
    finally:
        jax.config.update("jax_debug_nans", False)


@in_a_thread_of_its_own
def test_a_check_that_is_on_while_a_function_is_located_stays_on():
    with jax.debug_nans(True):
        report = nd.locate(root, jnp.array([-1.0]))
        with pytest.raises(FloatingPointError):
            jax.jit(root)(jnp.array([-1.0]))
    assert report is not None and report.origin.primitive == "sqrt"
    assert jnp.isnan(jax.jit(root)(jnp.array([-1.0]))).all()


def test_replays_that_overlap_in_two_threads_leave_callbacks_as_they_were():
    first_is_open, second_is_open, first_is_closed = threading.Event(), threading.Event(), threading.Event()

    def first():
        with effects.muted_effects():
            first_is_open.set()
            second_is_open.wait(20)
        first_is_closed.set()

    def second():
        first_is_open.wait(20)
        with effects.muted_effects():
            second_is_open.set()
            first_is_closed.wait(20)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    seen = []
    jax.jit(lambda x: jax.debug.callback(lambda y: seen.append(float(y)), x))(2.0)
    jax.effects_barrier()
    assert seen == [2.0]


def counted(x, called):
    """A loop that a NaN ends before its time, and a callback that is only called where it does not end there."""
    _, count = lax.while_loop(lambda s: jnp.log(x - s[1]) > -9.0, lambda s: (s[0], s[1] + 1.0), (x, 0.0))
    late = lax.cond(count > 5.0, lambda: called(count), lambda: count)
    return x / (late - 3.0)


def test_an_effect_that_only_a_replay_with_other_values_would_have_is_not_had():
    seen = []

    def keep(count):
        return io_callback(lambda c: (seen.append(c), c)[1], count, count)

    report = nd.locate(jax.jit(functools.partial(counted, called=keep)), jnp.float32(2.5))
    assert report is not None and report.origin.primitive == "log"
    assert seen == []


def test_a_check_that_only_a_replay_with_other_values_fails_is_not_logged(caplog):
    def fails(count):
        raise RuntimeError("too many")

    def check(count):
        return jax.pure_callback(fails, count, count)

    report = nd.locate(jax.jit(functools.partial(counted, called=check)), jnp.float32(2.5))
    assert report is not None and report.origin.primitive == "log"
    assert caplog.text == ""
