"""The step is traced once more with every operation seen as it was written; nothing that JAX keeps of the user's functions is touched."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import nandetect as nd
from nandetect import compat
from nandetect.fixing.retrace import retrace

X = jnp.array([0.0, 200.0, 1.0])


def names(graph):
    return [node.name for node in graph.nodes if node.source is not None and not node.is_derivative]


def test_operations_are_seen_as_they_were_written_under_every_transform():
    def loss(x):
        return jnp.log(jax.nn.softmax(x)).sum()

    plain = retrace(lambda: jax.make_jaxpr(loss)(X))[1]
    for wrapped in (jax.grad(loss), jax.jit(jax.grad(loss)), jax.jit(jax.jit(loss)), jax.checkpoint(loss), jax.vmap(lambda s: loss(s * X))):
        graph = retrace(lambda wrapped=wrapped: jax.make_jaxpr(wrapped)(X))[1]
        seen = names(graph)
        for name in ("reduce_max", "exp", "reduce_sum", "div", "log"):
            assert seen.count(name) >= names(plain).count(name) > 0, (wrapped, name)


def test_an_operation_in_the_body_of_a_loop_is_exchanged():
    def step(x):
        return lax.scan(lambda c, _: (jnp.exp(c) * 0.0 + c, None), x, None, length=3)[0]

    def put(graph, node):
        return jnp.sin(node.ins[0]) if node.name == "exp" else None

    jaxpr, _ = retrace(lambda: jax.make_jaxpr(step)(X), put)
    assert "sin" in str(jaxpr) and "exp" not in str(jaxpr)
    assert "exp" in str(jax.make_jaxpr(step)(X))


def test_what_stands_in_is_differentiated_as_if_it_had_been_written():
    def put(graph, node):
        return jax.nn.softplus(node.ins[0]) if node.name == "sin" else None

    jaxpr, _ = retrace(lambda: jax.make_jaxpr(jax.grad(lambda x: jnp.sin(x)))(1.0), put)
    (slope,) = jax.jit(compat.as_function(jaxpr, []))(1.0)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-1.0)), rtol=1e-6)


def test_the_users_step_is_what_it_was_and_is_not_traced_again_for_it():
    traced = []

    @jax.jit
    def step(x):
        traced.append(1)
        return jnp.log(jax.nn.softmax(x))

    before = step(X)
    assert len(traced) == 1
    report = nd.locate(step, X)
    assert report is not None and report.fixes[0].proven
    assert len(traced) > 1
    count = len(traced)
    np.testing.assert_array_equal(step(X), before)
    assert len(traced) == count


def test_what_other_threads_compute_meanwhile_is_theirs():
    others, ready, done = [], threading.Event(), threading.Event()

    def elsewhere():
        ready.wait(10)
        others.append(np.asarray(jax.jit(lambda x: jnp.sin(x) * 2)(1.0)))
        done.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()

    def step(x):
        ready.set()
        done.wait(10)
        return jnp.sin(x)

    def put(graph, node):
        return node.ins[0] * 0 if node.name == "sin" else None

    jaxpr, _ = retrace(lambda: jax.make_jaxpr(step)(1.0), put)
    thread.join()
    np.testing.assert_allclose(others[0], 2 * np.sin(1.0), rtol=1e-6)
    assert "sin" not in str(jaxpr)


def test_a_function_of_the_users_own_that_fails_while_it_is_traced_again_costs_only_the_fix():
    calls = []

    def step(x):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("no more")
        return jnp.log(x)

    report = nd.locate(step, jnp.zeros(2))
    assert report is not None
    assert report.origin.primitive == "log"
