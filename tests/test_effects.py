"""What is changed in JAX for a replay is as it was afterwards."""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import pytest

import nandetect as nd


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
