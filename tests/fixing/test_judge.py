"""A form that is another function is told from one that is the same, also where both are finite on the user's own numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from nandetect.fixing.forms import Form, Found, Operand
from nandetect.fixing.judge import judge
from nandetect.fixing.retrace import retrace


def found(step, form, x=None):
    """A form of the first operation's operand in place of the last one's value, in the trace of a step."""
    x = jnp.array([0.5, -1.0, 2.0]) if x is None else x
    _, graph = retrace(lambda: jax.make_jaxpr(step)(x))
    nodes = [node for node in graph.nodes if node.source is not None]
    leaves, names = {"x": nodes[0].ins[-1]}, {"x": Operand(nodes[0], 0, None)}
    return graph, Found("ND000", nodes[-1], Form(lambda env: form(env["x"]), ""), leaves, names)


def log_of_softmax(x):
    return jnp.log(jnp.exp(x) / jnp.exp(x).sum())


def log_of_rest(x):
    return jnp.log(1 - jax.nn.sigmoid(x))


RIGHT = {
    "log-softmax": (log_of_softmax, jax.nn.log_softmax),
    "log-sigmoid": (log_of_rest, lambda x: jax.nn.log_sigmoid(-x)),
    "logsumexp": (lambda x: jnp.log(jnp.exp(x).sum()), jax.nn.logsumexp),
    "softplus": (lambda x: jnp.log(1 + jnp.exp(x)), jax.nn.softplus),
}
WRONG = {
    "a clip": (log_of_softmax, lambda x: jnp.log(jnp.maximum(jax.nn.softmax(x), 1e-30))),
    "an epsilon": (log_of_rest, lambda x: jnp.log(1 - jax.nn.sigmoid(x) + 1e-7)),
    "a bounded exponent": (lambda x: jnp.log(1 + jnp.exp(x)), lambda x: jnp.log(1 + jnp.exp(jnp.minimum(x, 80.0)))),
    "a stopped gradient": (log_of_softmax, lambda x: x - jax.lax.stop_gradient(jax.nn.logsumexp(x))),
    "a sign": (log_of_rest, jax.nn.log_sigmoid),
    "a value where there is none": (lambda x: jnp.log(jnp.negative(jnp.negative(x))), lambda x: jnp.log(jnp.abs(x))),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_same_function_is_one(name):
    judged = judge(*found(*RIGHT[name]))
    assert judged is not None and judged.is_same and not judged.of_positive
    assert judged.apart < 1e-5


@pytest.mark.parametrize("name", WRONG)
def test_another_function_is_none(name):
    judged = judge(*found(*WRONG[name]))
    assert judged is not None and not (judged.is_same and not judged.of_positive)


def test_along_another_axis_it_is_another_function():
    x = jnp.ones((2, 3))
    right = judge(*found(lambda x: jnp.log(jnp.exp(x) / jnp.exp(x).sum(0)), lambda x: jax.nn.log_softmax(x, axis=0), x=x))
    wrong = judge(*found(lambda x: jnp.log(jnp.exp(x) / jnp.exp(x).sum(0)), lambda x: jax.nn.log_softmax(x, axis=1), x=x))
    assert right is not None and right.is_same
    assert wrong is not None and not wrong.is_same


def test_a_form_of_positive_numbers_is_known_as_one():
    judged = judge(*found(lambda x: jnp.log(x * x[::-1]), lambda x: jnp.log(x) + jnp.log(x[::-1])))
    assert judged is not None and judged.is_same and judged.of_positive
