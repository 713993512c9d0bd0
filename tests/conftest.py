"""What all tests share: workers, compiled programs, and for `locate` the truth, which is a mark in the test's own source."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import nandetect as nd
from nandetect import fixing, widths
from nandetect.records import Report

pytest_plugins = ["pytester"]

MARK = "# <-- origin"
# Trying a fix takes as long as locating its fault: the tests of `fixing` and the commands that tests start do, the others go without.
fixing.PRESCRIBES = False


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite, or folders of it, in workers, where pytest-xdist is installed.

    A file or a test by name, or a choice by `-k`, starts at once: a worker would take longer to import JAX than most of them take to run.
    `-n` decides where it is given, `-n 0` for none.
    """
    option = config.option
    worker = "PYTEST_XDIST_WORKER" in os.environ
    if worker or not config.pluginmanager.hasplugin("xdist") or option.numprocesses is not None or option.tx:
        return
    folders = all((config.invocation_params.dir / argument).is_dir() for argument in config.args)
    chosen = option.keyword or option.markexpr or config.getoption("lf", False) or config.getoption("stepwise", False)
    if folders and not chosen and not option.collectonly and option.capture != "no":
        option.numprocesses = "auto"
        # A worker takes up to 2 GB.
        option.maxprocesses = option.maxprocesses or 8
        if option.dist == "no":
            # Neighbouring tests stay together, as they share fixtures and programs.
            option.dist = "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs and bytecode for the length of the run, for the tests and for the processes that they start."""
    folder = tempfile.TemporaryDirectory(prefix="nandetect-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    share_compiled_programs(Path(folder.name))
    share_bytecode(Path(folder.name))


def share_compiled_programs(folder: Path) -> None:
    """Let a program that one test compiled be read by the next: compiling is most of a run's time.

    Each worker has a folder of its own: JAX does not write a program's file at once, and another worker could read half of one.
    A `JAX_COMPILATION_CACHE_DIR` of the user's own holds these folders, so that the programs outlive the run.
    """
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", folder)) / os.environ.get("PYTEST_XDIST_WORKER", "")
    settings = {
        "compilation_cache_dir": str(folder),
        # By default JAX keeps only what took a second to compile. Nearly all programs of the tests take less.
        "persistent_cache_min_compile_time_secs": 0,
        "persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(f"jax_{name}", value)
        os.environ[f"JAX_{name.upper()}"] = str(value)


def share_bytecode(folder: Path) -> None:
    """Where Python is told to write no bytecode, let it write some here: a process without would parse JAX's sources for a second."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))


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

    def report(function: Callable[..., object], *args: object, **kwargs: Any) -> Report:
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
    with widths.double():
        yield
