"""A report names the other places of its hazard, and whether they break in this run; what is guarded or shifted is none."""

from __future__ import annotations

import inspect
import json

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import nandetect as nd
from nandetect.render import terminal

EDGE = jnp.array([0.0, 1.0])


def roots(p, q, r, s):
    one = jnp.sqrt(p).sum()
    also_at_zero = jnp.sqrt(q * q).sum()
    not_at_zero = jnp.sqrt(jnp.sum(s * s))
    shifted = jnp.sqrt(r + 1e-6).sum()
    guarded = jnp.where(r > 0, jnp.sqrt(jnp.where(r > 0, r, 1.0)), 0.0).sum()
    bounded = lax.sqrt(jnp.maximum(r, 1e-3)).sum()
    measured = lax.stop_gradient(jnp.sqrt(r[0]))
    return one + also_at_zero + not_at_zero + shifted + guarded + bounded + measured


def entropies(a, b, c):
    one = -jnp.log(jax.nn.softmax(a))[0]
    also = -jnp.log(jax.nn.softmax(b))[0]
    shifted = -jnp.log(jax.nn.softmax(c) + 1e-6)[0]
    return one + also + shifted


def means(x, n, m):
    return x.sum() / n, x.sum() / m, x.sum() / (m + 1e-6), x.mean(), jax.nn.softmax(x), x / jnp.maximum(m, 1)


def single(x):
    return jnp.log(x).sum() + jnp.sqrt(x + 1).sum() / 2 + x.std()


def places(step, *args, function=None):
    """The expressions, and whether each breaks now."""
    report = nd.locate(step, *args)
    assert report is not None
    return [(site.expression(), one.at_edge) for one in report.elsewhere for site in [one.source]], report


def line(function, text):
    lines, first = inspect.getsourcelines(function)
    return next(first + number for number, code in enumerate(lines) if text in code)


def test_the_roots_of_what_can_be_0_are_named_with_their_lines():
    found, report = places(jax.jit(jax.grad(roots, argnums=(0, 1, 2, 3))), EDGE, EDGE, EDGE, EDGE + 1)
    assert found == [("jnp.sqrt(q * q)", True), ("jnp.sqrt(jnp.sum(s * s))", False)]
    one, other = line(roots, "also_at_zero ="), line(roots, "not_at_zero =")
    assert f"2 more places take `sqrt` of what can be 0: lines {one}, {other}; line {one} breaks now too" in " ".join(
        terminal.text(report, 200).split()
    )


def test_where_a_function_is_written_so_that_it_breaks_the_same_function_elsewhere_is_named():
    found, report = places(entropies, jnp.array([0.0, 200.0]), EDGE, EDGE)
    assert found == [("jnp.log(jax.nn.softmax(b))", False)]
    said = f"1 more place is written this way: line {line(entropies, 'also =')}; it does not break now"
    assert said in " ".join(terminal.text(report, 200).split())


@pytest.mark.parametrize(("m", "breaks"), [(0.0, True), (2.0, False)])
def test_divisions_by_what_can_be_0_are_measured_in_this_run(m, breaks):
    found, _ = places(means, jnp.arange(3.0), jnp.float32(0), jnp.float32(m))
    assert found == [("x.sum() / m", breaks)]


def test_where_there_is_no_other_place_nothing_is_said():
    found, report = places(single, EDGE)
    assert found == []
    assert "more place" not in terminal.text(report, 200)


def test_places_in_loops_and_helpers_are_places():
    def size(v):
        return jnp.log(jnp.sum(v * v))

    def step(x, y):
        total, _ = lax.scan(lambda c, v: (c + jnp.log(v), None), 0.0, x)
        return total + size(y)

    found, _ = places(step, EDGE, EDGE)
    assert found == [("jnp.log(jnp.sum(v * v))", False)]


def test_it_is_in_the_json_and_not_without_a_proof():
    args = jnp.arange(3.0), jnp.float32(0), jnp.float32(2)
    report = nd.locate(means, *args)
    assert report is not None
    (site,) = json.loads(report.to_json())["elsewhere"]
    assert {name: site[name] for name in ("code", "primitive", "what", "at_edge")} == {
        "code": "ND239",
        "primitive": "div",
        "what": "divide by what can be 0",
        "at_edge": False,
    }
    without = nd.locate(means, *args, prove=False)
    assert without is not None
    assert without.elsewhere == ()
