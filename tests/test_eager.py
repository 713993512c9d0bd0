"""Code that is not jitted: whenever its results are looked at, the fault found in them is the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from nandetect import eager
from nandetect.everywhere import watching


class Told(Exception):
    """Stops the program."""


def loss(w, x):
    return jnp.sum(jax.nn.relu(x @ w)) + jnp.sqrt(jnp.sum(w * x[0]))  # <-- origin


def train(steps, bad):
    w = jnp.ones(3)
    for number in range(steps):
        w = w - 0.001 * jax.grad(loss)(w, jnp.ones(3) * (number != bad))
    return w


@pytest.fixture
def look_after(monkeypatch):
    """Makes the one look come after that many operations, and returns what was told."""

    def look(operations):
        monkeypatch.setattr(eager, "_GLANCE", operations)
        monkeypatch.setattr(eager, "_SECONDS", -1.0)
        monkeypatch.setattr(eager, "_SHARE", 1e9)
        told = []

        def tell(report):
            told.append(report)
            raise Told

        with watching(tell) as everywhere:
            try:
                w = train(3, bad=1)
                everywhere.flush()
                del w  # a program holds its result to its end
            except Told:
                pass
        return told

    return look


# A step is some thirty operations; some of them are handed from one trace to another, where nothing can run in between.
@pytest.mark.parametrize("operations", range(36, 72))
def test_a_look_after_any_operation_finds_the_origin(look_after, operations):
    (report,) = look_after(operations)
    origin = report.origin
    assert (origin.primitive, origin.phase) == ("div", "backward")
    assert origin.source.code.endswith("# <-- origin")
