"""What is said beside an origin helps, and where making it fails the origin is told all the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import nandetect as nd
from nandetect.locating import reporting


@pytest.mark.parametrize("aid", ["_chain", "_beside", "also_at_fault", "birth_event", "_wider"])
@pytest.mark.parametrize("error", [KeyError, RecursionError])
def test_an_aid_that_fails_costs_no_report(monkeypatch, aid, error):
    def fail(*args, **kwargs):
        raise error("of an aid")

    monkeypatch.setattr(reporting, aid, fail)
    report = nd.locate(jax.jit(lambda x, z: (x / x + 1.0 / z, jnp.sqrt(z - 1.0))), 0.0, 0.0)
    assert report is not None
    assert (report.origin.primitive, report.origin.reason) == ("div", "zero divided by zero")
