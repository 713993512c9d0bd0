"""Is this installation sound? What it consists of, what changes its numbers, and whether a planted NaN is found."""

from __future__ import annotations

import importlib.util
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import __version__
from nandetect.annotations import Json
from nandetect.errors import UsageError
from nandetect.fixing.locate import locate
from nandetect.records import Event, Finding, plain

_PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "equinox", "dm-haiku")
FLAGS = (
    "jax_enable_x64",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_jit",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
)
_VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "LIBTPU_INIT_ARGS")

# The planted program becomes a file of its own: what lies inside nandetect is never taken for the user's code.
PLANTED = """\
import jax
import jax.numpy as jnp


def add_log(total, x):
    return total + jnp.log(x), total  # forward


def loss(xs):
    return jnp.sum(jnp.sqrt(xs))  # backward


forward = jax.jit(lambda xs: jax.lax.scan(add_log, 0.0, xs)[0])
backward = jax.jit(jax.value_and_grad(loss))
"""
# The argument of both planted functions; its element 3 is the fault.
_ROW = (3.0, 2.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """One planted fault: what was to be found and what was."""

    name: str
    expected: str
    found: str

    @property
    def passed(self) -> bool:
        """Whether what was found is what was expected."""
        return self.expected == self.found


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What the doctor saw of an installation."""

    versions: Mapping[str, str]
    backend: str
    devices: tuple[str, ...]
    flags: Mapping[str, bool | str | None]
    variables: Mapping[str, str]
    subnormals: str
    self_tests: tuple[SelfTest, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """One error for each planted fault that was not found as it was planted."""
        return tuple(
            Finding(
                rule="self-test",
                code="ND900",
                severity="error",
                message=f"the planted fault `{test.name}` was not found: expected {test.expected}, got {test.found}",
                cause="the engine does not work with this installation",
                measured=test.found,
                expected=test.expected,
                help="report it with the output of `nandetect doctor --json -`",
            )
            for test in self.self_tests
            if not test.passed
        )

    def to_dict(self) -> dict[str, Json]:
        """The checkup as plain data."""
        tests: list[Json] = [{**plain(test), "passed": test.passed} for test in self.self_tests]
        return {**plain(self), "self_tests": tests, "healthy": not self.findings}


def examine() -> Checkup:
    """Look at this installation and test it."""
    try:
        backend = jax.default_backend()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"JAX cannot start: {reason}; look at JAX_PLATFORMS and at what is installed beside jax") from error
    return Checkup(
        versions=versions(),
        backend=backend,
        devices=tuple(f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices()),
        flags=flags(),
        variables=variables(),
        subnormals=subnormals(),
        self_tests=tuple(self_test()),
    )


def versions() -> dict[str, str]:
    """The versions of nandetect, Python, and what is installed of JAX and the libraries on it."""
    by_name = {"nandetect": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            by_name[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return by_name


def flags() -> dict[str, bool | str | None]:
    """JAX's settings that change numbers."""
    return {name: getattr(jax.config, name) for name in FLAGS if hasattr(jax.config, name)}


def variables() -> dict[str, str]:
    """The environment variables that change numbers, where they are set."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def subnormals() -> str:
    """Whether a compiled float32 multiplication keeps a subnormal result or flushes it to zero."""
    smallest = np.finfo(np.float32).tiny
    return "kept" if float(jax.jit(lambda x: x * 0.5)(jnp.float32(smallest))) else "flushed to zero"


def self_test() -> Iterator[SelfTest]:
    """Plant a fault in the forward and one in the backward pass, and look for each."""
    with _planted() as (program, line):
        yield SelfTest(
            name="log of zero in a scan",
            expected=f"log made -inf, forward, line {line['forward']}, scan 3",
            found=_found(program.forward),
        )
        yield SelfTest(
            name="derivative of sqrt at zero",
            expected=f"div made inf, backward, line {line['backward']}, element [3]",
            found=_found(program.backward),
        )


def _found(step: Callable[..., object]) -> str:
    """What `locate` says of a planted fault."""
    try:
        report = locate(step, jnp.array(_ROW))
    except Exception as error:  # the checkup goes on, whatever is broken, and says so
        return f"{type(error).__name__}: {error}"
    return _said(report.origin) if report else "nothing"


def _said(origin: Event) -> str:
    place = [f"line {origin.source.line}" if origin.source else "no line", *(f"{kind} {number}" for kind, number in origin.context)]
    element = [f"element {list(origin.index)}"] if origin.index else []
    return ", ".join([f"{origin.primitive} made {origin.value}", origin.phase, *place, *element])


@contextmanager
def _planted() -> Iterator[tuple[ModuleType, Mapping[str, int]]]:
    """The planted program as a user's module, and the line of each fault."""
    lines = {line.rpartition("# ")[2]: number for number, line in enumerate(PLANTED.splitlines(), 1) if "# " in line}
    with tempfile.TemporaryDirectory(prefix="nandetect-doctor-") as folder:
        file = Path(folder) / "planted.py"
        file.write_text(PLANTED, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("planted", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module, lines
