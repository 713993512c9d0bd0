"""What a derivative rule of the user's own computes is on the line of the rule, also where JAX files it under the call of the function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd

X = np.ones(4, np.float32)


def root(x, t):
    return jnp.sqrt(2.0 - 4.0 * t * x)


ROOT_LINE = root.__code__.co_firstlineno + 1


# What is returned comes of a rule; what the gradient is of, does not.
@jax.custom_vjp
def pulled(x, t):
    return root(x, t)


pulled.defvjp(lambda x, t: (root(x, t), x), lambda x, out: (0.5 * out * jnp.cos(x), jnp.zeros(())))


@jax.custom_jvp
def pushed(x, t):
    return root(x, t)


@pushed.defjvp
def _(primals, tangents):
    return root(*primals), 0.5 * tangents[0] * jnp.cos(primals[0])


# What the gradient is of comes of a rule.
@jax.custom_jvp
def sloped(x, t):
    return 0.5 * jnp.tanh(x) + t


@sloped.defjvp
def _(primals, tangents):
    return sloped(*primals), root(*primals) * tangents[0]


def branch(rule, x, t):
    return jnp.mean(jax.lax.cond(t > -1.0, lambda x: 0.5 * rule(x, t), lambda x: x, x))


def scan(rule, x, t):
    return jnp.mean(jax.lax.map(lambda x: 0.5 * rule(x, t), x))


def nested(rule, x, t):
    return jnp.mean(jax.jit(rule)(x, t))


def checkpoint(rule, x, t):
    return jnp.mean(jax.checkpoint(rule)(x, t))


def plain(rule, x, t):
    return jnp.mean(rule(x, t))


@pytest.mark.parametrize("around", [plain, branch, scan, nested, checkpoint])
@pytest.mark.parametrize(("rule", "phase"), [(pulled, "forward"), (pushed, "forward"), (sloped, "backward")])
def test_fault_inside_a_rule_is_on_the_line_of_the_rule(around: Any, rule: Any, phase: str):
    report = nd.locate(jax.jit(jax.value_and_grad(lambda x, t: around(rule, x, t))), X, np.float32(1))
    assert report is not None and report.origin.source is not None
    origin, source = report.origin, report.origin.source
    assert (origin.primitive, origin.phase, origin.derivative_of) == ("sqrt", phase, None)
    assert (source.file, source.line) == (__file__, ROOT_LINE)


def test_library_that_a_function_of_the_users_own_calls_costs_no_second_trace(find):
    traced = []

    def halved(x, t):
        traced.append(x)
        return jnp.mean(0.5 * jax.lax.map(lambda x: jax.scipy.special.xlogy(x, 1.0 - 2.0 * t), x))  # <-- origin

    assert find(jax.jit(halved), X, np.float32(1)).origin.phase == "forward"
    assert len(traced) == 1
