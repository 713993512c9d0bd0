"""`strict=True`: births that nothing visible descends from count as faults too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import nandetect as nd


def test_nan_that_a_cast_to_integers_swallowed(find, xs):
    f = jax.jit(lambda x: jnp.log(x).astype(jnp.int32))  # <-- origin
    assert find(f, xs, strict=True).origin.primitive == "log"
    assert nd.locate(f, xs) is None


def test_nan_that_argmax_swallowed(find, xs):
    f = jax.jit(lambda x: jnp.argmax(x / x))  # <-- origin
    assert find(f, xs, strict=True).origin.primitive == "div"


def test_nan_that_a_where_dropped(find, xs):
    f = jax.jit(lambda x: jnp.where(x > 0, jnp.log(x), 0.0))  # <-- origin
    assert find(f, xs, strict=True).origin.index == (1,)


def test_nan_that_was_made_of_an_inf_that_was_given(find):
    f = jax.jit(lambda x: jnp.nan_to_num(x - x))  # <-- origin
    assert find(f, jnp.array([1.0, jnp.inf]), strict=True).origin.primitive == "sub"


def test_nan_that_only_chose_a_branch(find):
    f = jax.jit(lambda x: lax.cond(jnp.isnan(x / x), lambda: 1, lambda: 2))  # <-- origin
    assert find(f, jnp.float32(0), strict=True).origin.primitive == "div"


def test_birth_inside_a_scan_is_at_its_iteration(find, xs):
    def body(carry, x):
        return carry + jnp.where(x > 0, jnp.log(x), 0.0), None  # <-- origin

    f = jax.jit(lambda xs: lax.scan(body, 0.0, xs)[0])
    assert find(f, xs, strict=True).origin.context == (("scan", 1),)


def test_birth_inside_a_while_is_at_its_iteration(find, xs):
    def body(state):
        i, total = state
        return i + 1, total + jnp.where(xs[i] > 0, jnp.log(xs[i]), 0.0)  # <-- origin

    f = jax.jit(lambda: lax.while_loop(lambda state: state[0] < 3, body, (0, 0.0))[1])
    assert find(f, strict=True).origin.context == (("while", 1),)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 2 * x,
        lambda x: jnp.max(jnp.where(x > 0, x, -jnp.inf)),
        lambda x: lax.scan(lambda c, y: (c + y, None), 0.0, x)[0],
        lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), 0.0),
    ],
)
def test_step_in_which_nothing_is_born_is_silent(function, xs):
    assert nd.locate(jax.jit(lambda x: function(x)), xs, strict=True) is None


def test_fault_that_is_seen_comes_before_one_that_is_not(find, xs):
    @jax.jit
    def f(x):
        return jnp.where(x > 0, jnp.log(x), 0.0), 1 / x  # <-- origin

    assert find(f, xs, strict=True).origin.primitive == "div"
