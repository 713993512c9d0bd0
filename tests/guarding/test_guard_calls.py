"""`guard` where calls come from several threads, or of a function that is not compiled."""

from __future__ import annotations

import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guard_steps import root_step, rows, train

import nandetect as nd


def test_threads_may_share_one():
    guarded, errors = nd.guard(jax.jit(root_step), check_every=10), []

    def work(fault):
        batches = rows(40)
        if fault:
            batches[25] *= 0
        try:
            train(guarded, batches)
            guarded.flush()
        except nd.NonFiniteError as error:
            errors.append(error.report.origin.primitive)

    threads = [threading.Thread(target=work, args=(fault,)) for fault in (True, False, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["div"]
    assert guarded.cost().calls >= 100


def test_a_function_that_is_not_compiled_is_not_run_again_to_find_the_call():
    calls = []

    def step(w, x):
        calls.append(1)
        return w * jnp.log(jnp.sum(x))

    guarded, w = nd.guard(step), jnp.ones(3)
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(10):
            w = guarded(w, jnp.zeros(3) if number == 6 else jnp.ones(3))
    assert (caught.value.report.step, caught.value.report.origin.primitive) == (6, "log")
    # Once by the program, once traced, and once by `locate`.
    assert len(calls) == 7 + 2


def test_a_function_that_is_not_compiled_may_take_what_cannot_be_compared():
    @jax.tree_util.register_pytree_node_class
    class Scaled:
        def __init__(self, value, scale):
            self.value, self.scale = value, scale

        def tree_flatten(self):
            return (self.value,), self.scale

        @classmethod
        def tree_unflatten(cls, scale, children):
            (value,) = children
            return cls(value, scale)

    guarded = nd.guard(lambda scaled: jnp.sum(scaled.value * scaled.scale))
    for _ in range(3):
        assert guarded(Scaled(jnp.ones(2), np.array([1.0, 2.0]))) == 3


def test_threads_that_have_ended_are_let_go():
    guarded = nd.guard(jax.jit(lambda x: jnp.sum(x)))
    for _ in range(5):
        thread = threading.Thread(target=lambda: guarded(jnp.ones(1000)))
        thread.start()
        thread.join()
    guarded(jnp.ones(1000))
    assert guarded.cost().calls == 6
    assert guarded.cost().kept_bytes <= 4000


def test_a_jit_around_a_guarded_method_is_located():
    class Strategy:
        @nd.guard
        @partial(jax.jit, static_argnames=("self",))
        def begin(self, key, x):
            return jnp.log(x) + jax.random.normal(key, x.shape)

    report = nd.locate(jax.jit(Strategy().begin), jax.random.key(0), jnp.zeros(3))
    assert report is not None
    assert report.origin.primitive == "log"
