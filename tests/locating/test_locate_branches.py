"""Branches: the one that ran is named, the one that did not is never blamed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

import nandetect as nd


def test_cond_names_the_branch(find):
    @jax.jit
    def f(x):
        def log(v):
            return jnp.log(v)  # <-- origin

        return lax.cond(x > -1, log, lambda v: v, x)

    assert find(f, jnp.float32(0)).origin.context == (("cond", 1),)


def test_switch_names_the_branch_also_when_the_index_is_out_of_range(find):
    @jax.jit
    def f(i, x):
        def log(v):
            return jnp.log(v)  # <-- origin

        return lax.switch(i, [lambda v: v, lambda v: 2 * v, log], x)

    for index in (2, 9):
        assert find(f, index, jnp.float32(0)).origin.context == (("cond", 2),)


def test_branch_that_did_not_run_is_silent():
    @jax.jit
    def f(x):
        return lax.cond(x > 0, lambda v: jnp.log(v), lambda v: v, x)

    assert nd.locate(f, jnp.float32(0)) is None


def test_branch_inside_a_scan_and_scan_inside_a_branch_keep_their_order(find):
    def body(carry, x):
        def log(v):
            return jnp.log(v)  # <-- origin

        return carry + lax.cond(x < 0.5, log, lambda v: v, x), None

    data = jnp.array([1.0, 1.0, 0.0, 7.0])
    inside = jax.jit(lambda xs: lax.scan(body, 1.0, xs)[0])
    around = jax.jit(lambda xs: lax.cond(xs[0] > 0, lambda xs: lax.scan(body, 1.0, xs)[0], lambda xs: 0.0, xs))
    assert find(inside, data).origin.context == (("scan", 2), ("cond", 1))
    assert find(around, data).origin.context == (("cond", 1), ("scan", 2), ("cond", 1))


def test_derivative_in_a_branch_is_backward_on_its_line(find, xs):
    def f(x):
        def root(x):
            return jnp.sqrt(x).sum()  # <-- origin

        return lax.cond(x.sum() > 0, root, lambda x: x.sum(), x)

    origin = find(jax.jit(jax.value_and_grad(f)), xs).origin
    assert (origin.primitive, origin.phase, origin.context) == ("div", "backward", (("cond", 1),))


def test_branch_chosen_by_a_nan_is_not_a_symptom():
    f = jax.jit(lambda x: lax.cond(jnp.isnan(x / x), lambda: 1.0, lambda: 2.0))
    assert nd.locate(f, jnp.float32(0)) is None


def test_predicate_of_a_while_that_saw_a_nan_is_not_a_symptom():
    f = jax.jit(lambda x: lax.while_loop(lambda s: jnp.log(-s) < 0, lambda s: s + 1, x))
    assert nd.locate(f, jnp.float32(1)) is None
