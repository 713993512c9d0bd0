"""A -inf that was meant and comes out of log(sum(exp(x))) as it went in is state; a 0 that something was lost to is a fault."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.scipy.special import logsumexp

import nandetect as nd

MASKED = jnp.array([[0.5, -1.0], [-jnp.inf, -jnp.inf]])


def by_hand(x):
    return jnp.log(jnp.sum(jnp.exp(x), axis=1))


def path(x):
    """The forward algorithm over a chain whose second state cannot be reached."""
    step = jnp.array([[0.0, -jnp.inf], [-jnp.inf, 0.0]])
    start = jnp.array([0.0, -jnp.inf]) + x[0, 0]
    return lax.scan(lambda alpha, _: (by_hand((alpha[:, None] + step).T), None), start, None, length=3)[0]


SOUND = {
    "a row of -inf": lambda x: logsumexp(x, axis=1),
    "a mask that is False all over": lambda x: logsumexp(jnp.where(x > 5, x, -jnp.inf), axis=1),
    "by hand": by_hand,
    "weighed": lambda x: logsumexp(x, axis=1, b=jnp.array([2.0, 3.0])),
    "base 2": lambda x: jnp.log(jnp.exp2(x)),
    "a vmapped row": lambda x: jax.vmap(logsumexp)(x),
    "a chain": path,
    "a running sum": lambda x: lax.cumlogsumexp(jnp.where(x > 5, x, -jnp.inf), axis=1),
    "the maximum of nothing": lambda x: jnp.max(x[:0], axis=0, initial=-jnp.inf),
    "a pool of padding": lambda x: lax.reduce_window(x[0], -jnp.inf, lax.max, (2,), (2,), ((2, 0),)),
    "the least of nothing": lambda x: lax.reduce_min(x[:, :0], (1,)) + 1.0,
}


@pytest.mark.parametrize("name", SOUND)
def test_a_probability_of_0_and_the_maximum_of_nothing_are_no_faults(name):
    step = jax.jit(SOUND[name])
    assert not jnp.isfinite(step(MASKED)).all()
    assert nd.locate(step, MASKED) is None


def test_what_was_meant_is_no_benign_birth_beside_a_fault():
    report = nd.locate(jax.jit(lambda x: (jnp.log(x[0]).sum(), logsumexp(x, axis=1), jnp.max(x[:0], axis=0, initial=-jnp.inf))), MASKED)
    assert report is not None
    assert (report.origin.reason, report.benign) == ("log of a negative number", ())


def test_guard_takes_it_for_state_too():
    step = nd.guard(jax.jit(lambda x: logsumexp(x, axis=1)), check_every=1)
    for _ in range(3):
        step(MASKED)
    step.flush()


FAULTY = {
    "an exponential that underflows": (lambda x: by_hand(jnp.where(x > 0, x, -200.0)), "log"),
    "an exponential that underflows beside one of -inf": (lambda x: by_hand(x.at[1, 0].set(-200.0)), "log"),
    "a probability of 0 that is summed up": (lambda x: -jnp.log(jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf)[0])).sum(), "log"),
    "a loss that is inf": (lambda x: -by_hand(x), "log"),
    "a -inf that was made": (lambda x: logsumexp(jnp.log(jnp.where(x > 0, x, 0.0)), axis=1), "log"),
    "terms that cancel": (lambda x: logsumexp(jnp.ones((1, 2)), axis=1, b=jnp.array([1.0, -1.0])) + x[0, 0], "log"),
    "a 0 of an inf by division": (lambda x: jnp.log(1.0 / (x[0, 0] * 1e38 * 1e3)), "log"),
    "the logarithm of a sum of nothing": (lambda x: by_hand(x[:, :0]), "log"),
    "a softmax of -inf alone": (lambda x: jax.nn.softmax(x, axis=1), "sub"),
    "a maximum of nothing that is computed with": (lambda x: 0.0 * lax.reduce_max(x[:0], (0,)), "mul"),
    "a number too large for float16": (lambda x: jnp.max((x[0] * 1e6).astype(jnp.float16)), "convert_element_type"),
}


def test_of_what_was_meant_and_what_was_lost_the_loss_is_told():
    report = nd.locate(jax.jit(by_hand), jnp.concatenate([MASKED, jnp.full((1, 2), -200.0)]))
    assert report is not None
    assert (report.origin.index, report.origin.count) == ((2,), 2)


@pytest.mark.parametrize("name", FAULTY)
def test_what_was_lost_on_the_way_is_a_fault(name):
    function, primitive = FAULTY[name]
    report = nd.locate(jax.jit(function), MASKED)
    assert report is not None
    assert report.origin.primitive == primitive
