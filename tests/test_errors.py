"""What nandetect raises goes through JAX and through a pickle with all that it says."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import pytest

from nandetect.errors import NonFiniteError
from nandetect.records import Event, Report


def test_the_error_passes_through_a_derivative_and_a_pickle_with_its_report():
    report = Report(origin=Event(primitive="log", value="nan"), chain=(), symptoms=("result",))

    @jax.custom_vjp
    def stops(x):
        return x

    def backward(_, cotangent):
        raise NonFiniteError(report)

    stops.defvjp(lambda x: (x, None), backward)
    with pytest.raises(NonFiniteError) as raised:
        jax.grad(lambda x: jnp.sin(stops(x)))(1.0)
    assert raised.value.report == report
    assert pickle.loads(pickle.dumps(raised.value)).report == report
