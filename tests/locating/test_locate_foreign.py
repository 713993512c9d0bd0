"""What runs outside of JAX's program is told by its name: a callback, a kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import nandetect as nd
from nandetect.records import Report


def report_of(function: Callable[..., Any], *args: Any) -> Report:
    """The report of a step that breaks."""
    report = nd.locate(function, *args)
    assert report is not None
    return report


SHAPE = jax.ShapeDtypeStruct((3,), jnp.float32)


def read_sensor(x, scale):
    return np.where(x == 0, np.float32(np.nan), x * scale).astype(np.float32)


class Sensor:
    def read(self, x):
        return read_sensor(x, 1)


@pytest.mark.parametrize("call", [jax.pure_callback, io_callback])
@pytest.mark.parametrize(
    ("function", "told"),
    [
        (functools.partial(read_sensor, scale=2), "the callback `read_sensor` returned nan"),
        (Sensor().read, "the callback `read` returned nan"),
        (lambda x: read_sensor(x, 1), "the callback returned nan"),
    ],
)
def test_a_callback_that_returned_nan_is_named(xs, call, function, told):
    origin = report_of(jax.jit(lambda x: call(function, SHAPE, x) * 2), xs).origin
    assert (origin.reason, origin.index) == (told, (1,))


def test_a_kernel_that_returned_an_infinity_is_named(xs):
    pallas = pytest.importorskip("jax.experimental.pallas")

    def log_kernel(x, out):
        out[...] = jnp.log(x[...])

    step = jax.jit(lambda x: pallas.pallas_call(log_kernel, out_shape=SHAPE, interpret=True)(x))
    assert report_of(step, xs).origin.reason == "the kernel `log_kernel` returned -inf"


def test_a_mock_as_a_callback_has_no_name_and_no_end_of_attributes():
    answer = mock.MagicMock(return_value=np.full(3, np.nan, np.float32))
    origin = report_of(jax.jit(lambda x: jax.pure_callback(answer, SHAPE, x) * 2), jnp.ones(3)).origin
    assert origin.reason == "the callback returned nan"
