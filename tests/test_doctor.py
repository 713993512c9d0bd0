"""The doctor tells what is installed, and is healthy only where a planted NaN is found as it was planted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata, resources

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from nandetect import doctor
from nandetect.cli.commands import app
from nandetect.records import Event, Report, Source

SCHEMA = json.loads(resources.files("nandetect.render").joinpath("schema.json").read_text())


@pytest.fixture(scope="module")
def checkup() -> doctor.Checkup:
    return doctor.examine()


@pytest.fixture
def examined(checkup, monkeypatch):
    """The command finds the one checkup made, instead of making another."""
    monkeypatch.setattr(doctor, "examine", lambda: checkup)


def test_both_planted_faults_are_found_at_their_line(checkup):
    source = doctor.PLANTED.splitlines()
    forward, backward = checkup.self_tests
    assert forward.found == f"log made -inf, forward, line {1 + source.index('    return total + jnp.log(x), total  # forward')}, scan 3"
    assert backward.found == f"div made inf, backward, line {1 + source.index('    return jnp.sum(jnp.sqrt(xs))  # backward')}, element [3]"
    assert checkup.findings == ()


def test_versions_are_those_installed(checkup):
    assert checkup.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    for package in ("jax", "jaxlib", "numpy"):
        assert checkup.versions[package] == metadata.version(package)


def test_every_flag_it_looks_for_is_one_that_jax_has(checkup):
    assert checkup.flags == {name: getattr(jax.config, name) for name in doctor.FLAGS}


def test_flags_and_variables_that_change_numbers_are_told(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    with jax.debug_nans(True), jax.default_matmul_precision("highest"):
        seen = doctor.flags()
    assert seen["jax_debug_nans"] is True
    assert seen["jax_default_matmul_precision"] == "highest"
    assert doctor.variables() == {**doctor.variables(), "XLA_FLAGS": "--xla_cpu_enable_fast_math=false"}


def test_subnormals_fare_as_they_do_in_a_compiled_subtraction():
    smallest = np.finfo(np.float32).tiny
    difference = jax.jit(lambda x, y: x - y)(jnp.float32(1.5 * smallest), jnp.float32(smallest))
    assert doctor.subnormals() == ("flushed to zero" if difference == 0 else "kept")


def test_healthy_exits_0_and_prints_what_was_seen(examined):
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in done.output.splitlines() if line.count(" ") and not line.startswith("finds"))
    assert rows["jax"] == jax.__version__
    assert rows["backend"] == jax.default_backend()
    assert done.output.splitlines()[-1] == "healthy"


def test_the_json_document_follows_the_schema_and_is_all_there_is_on_standard_output(examined):
    done = CliRunner().invoke(app, ["doctor", "--json", "-"])
    document = json.loads(done.output)
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert document["doctor"]["healthy"] is True
    assert [test["passed"] for test in document["doctor"]["self_tests"]] == [True, True]


def test_a_blind_engine_is_not_healthy(monkeypatch):
    monkeypatch.setattr(doctor, "locate", lambda *_: None)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "got nothing" in done.output
    assert done.output.splitlines()[-1] == "not healthy: 2 of 2 planted faults not found"


def test_an_engine_that_finds_the_wrong_line_is_not_healthy(monkeypatch):
    wrong = Report(origin=Event(primitive="log", value="-inf", context=(("scan", 3),), source=Source(file="planted.py", line=99)))
    monkeypatch.setattr(doctor, "locate", lambda *_: wrong)
    findings = doctor.examine().findings
    assert [finding.measured for finding in findings] == ["log made -inf, forward, line 99, scan 3"] * 2


def test_an_engine_that_crashes_is_told_with_its_error(monkeypatch):
    def crash(*_: object) -> None:
        raise KeyError("ft_in")

    monkeypatch.setattr(doctor, "locate", crash)
    assert [test.found for test in doctor.self_test()] == ["KeyError: 'ft_in'"] * 2


def test_the_doctor_works_where_jax_debug_nans_is_on():
    with jax.debug_nans(True), jax.debug_infs(True):
        assert [test.passed for test in doctor.self_test()] == [True, True]


def test_the_doctor_works_in_x64():
    program = (
        "import jax; jax.config.update('jax_enable_x64', True); from nandetect import doctor; print([t.passed for t in doctor.self_test()])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[True, True]\n"


def test_a_backend_that_does_not_start_is_one_line_and_exit_2():
    environment = {**os.environ, "JAX_PLATFORMS": "nonsense"}
    program = "from nandetect.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "doctor"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("nandetect: JAX cannot start: ") and done.stderr.count("\n") == 1


def test_an_unwritable_json_path_is_refused_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "examine", lambda: pytest.fail("it ran"))
    done = CliRunner().invoke(app, ["doctor", "--json", str(tmp_path / "missing" / "out.json")])
    assert "there is no directory" in str(done.exception)
