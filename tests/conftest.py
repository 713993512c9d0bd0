"""What the tests of `locate` share: the truth is a mark in the test's own source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import pytest

import nandetect as nd
from nandetect.records import Report

pytest_plugins = ["pytester"]

MARK = "# <-- origin"


@pytest.fixture(scope="session", autouse=True)
def runs_kept_aside(tmp_path_factory) -> Iterator[None]:
    """What a test trains, in this process or another, is not kept among the user's own runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


_KEPT: list[Any] = []


@pytest.fixture
def equinox(monkeypatch) -> Any:
    """equinox, whose jitted functions live on: with JAX before 0.7.2 one that is gone at the end crashes Python, nandetect or not."""
    module = pytest.importorskip("equinox")
    jit = module.filter_jit

    def kept(*function: Any, **settings: Any) -> Any:
        if not function:
            return lambda function: kept(function, **settings)
        _KEPT.append(jit(*function, **settings))
        return _KEPT[-1]

    monkeypatch.setattr(module, "filter_jit", kept)
    return module


@pytest.fixture
def marked(request) -> int:
    """The number of the line of the test that ends in the mark."""
    lines, start = inspect.getsourcelines(request.function)
    (at,) = [number for number, line in enumerate(lines, start) if line.rstrip().endswith(MARK)]
    return at


@pytest.fixture
def find(request, marked) -> Callable[..., Report]:
    """`locate`, whose origin must stand on the marked line of the test and must have been seen in a replay."""

    def report(function: Callable[..., object], *args: object, **kwargs: object) -> Report:
        found = nd.locate(function, *args, **kwargs)
        assert found is not None
        source = found.origin.source
        assert source is not None
        assert (source.file, source.line) == (str(request.path), marked)
        assert found.reproduced
        return found

    return report


@pytest.fixture(scope="session")
def xs() -> jax.Array:
    """Three numbers, the middle one zero."""
    return jnp.array([1.0, 0.0, 2.0])


@pytest.fixture
def x64():
    """64-bit numbers for the length of a test."""
    # Experimental before JAX 0.8.
    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable(True):
        yield
