"""Documents follow the published schema, hold no NaN, and are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from nandetect import __version__
from nandetect.errors import UsageError
from nandetect.records import Event, Finding, Fix, Frame, Operand, Report, Source
from nandetect.render import json as documents

SCHEMA = json.loads(resources.files("nandetect.render").joinpath("schema.json").read_text())

FRAME = Frame(file="step.py", line=3, column=4, end_line=3, end_column=9, function="step", code="y = x / z")
ORIGIN = Event(
    primitive="div",
    reason="division by zero",
    source=Source(file="step.py", line=3, column=4, end_line=3, end_column=9, function="step", code="y = x / z", frames=(FRAME,)),
    context=(("scan", 3), ("cond", 1)),
    index=(2, 0),
    count=1,
    size=8,
    shape=(4, 2),
    dtype="float32",
    operands=(
        Operand(name="x", shape=(4, 2), dtype="float32", min=0.0, max=1.0, value=math.nan, index=(2, 0), nan=1),
        Operand(name="z", dtype="complex64", value=complex(0.0, math.inf)),
    ),
)
REPORT = Report(
    origin=ORIGIN,
    chain=(ORIGIN,),
    cause=(Event(primitive="<input>", value="finite", argument="batch['x']"),),
    symptoms=("loss",),
    fixes=(Fix(code="ND001", name="safe-division", why="z is zero", before="x / z", after="x / (z + eps)", proof=None),),
    step=0,
)
FAULT = Finding(rule="non-finite", code="ND001", severity="error", message="`div` made nan", step=0, report=REPORT)
HINT = Finding(rule="x64", code="ND301", severity="note", message="float64 is on", measured=math.inf, expected=[0.0, 1.0], layer="['w']")


def valid(document: dict) -> dict:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(json.dumps(document, allow_nan=False)), SCHEMA, cls=jsonschema.Draft202012Validator)
    return document


def test_a_document_follows_the_schema_and_names_its_command():
    document = valid(documents.document("audit-init", [FAULT, HINT], {"steps": 3, "loss": math.nan}))
    assert list(document) == ["schema", "command", "version", "environment", "findings", "audit_init"]
    assert (document["schema"], document["command"], document["version"]) == (1, "audit-init", __version__)
    assert document["audit_init"] == {"steps": 3, "loss": "nan"}


def test_a_finding_carries_its_report_and_the_origin_as_event():
    told: dict[str, Any] = documents.finding(FAULT)
    assert told["event"] == told["report"]["origin"]
    assert told["event"]["context"] == [["scan", 3], ["cond", 1]]
    assert told["step"] == 0


def test_a_finding_leaves_out_what_does_not_apply():
    assert documents.finding(HINT) == {
        "rule": "x64",
        "code": "ND301",
        "severity": "note",
        "message": "float64 is on",
        "layer": "['w']",
        "measured": "inf",
        "expected": [0.0, 1.0],
    }


@pytest.mark.parametrize(
    "broken",
    [
        {"rule": "Non Finite"},
        {"severity": "fatal"},
        {"step": -1},
        {"message": ""},
        {"surprise": 1},
        {"event": {"primitive": "div"}},
    ],
)
def test_the_schema_rejects_a_finding_that_is_not_one(broken):
    document: dict[str, Any] = documents.document("run", [HINT], {})
    document["findings"][0] |= broken
    with pytest.raises(jsonschema.ValidationError):
        valid(document)


def test_the_schema_rejects_a_document_without_its_commands_part():
    document = documents.document("run", [], {})
    del document["run"]
    with pytest.raises(jsonschema.ValidationError):
        valid(document)


def test_the_schema_knows_every_field_of_the_records():
    for name, record in {"report": Report, "event": Event, "operand": Operand, "fix": Fix, "frame": Frame}.items():
        assert set(SCHEMA["$defs"][name]["properties"]) == set(record.__dataclass_fields__), name
    assert set(SCHEMA["$defs"]["finding"]["properties"]) == {*Finding.__dataclass_fields__, "event"}


def test_the_environment_names_versions_and_devices_once_jax_is_imported():
    import jax

    told: dict[str, Any] = documents.environment()
    assert (told["jax"], told["numpy"], told["backend"]) == (jax.__version__, np.__version__, jax.default_backend())
    assert [device["id"] for device in told["devices"]] == [device.id for device in jax.devices()]


def test_the_environment_does_not_import_jax():
    program = (
        "import sys; from nandetect.render import json; print(json.environment()['backend'], 'jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None False False\n"


def test_a_document_is_written_and_read_back(tmp_path):
    document = documents.document("run", [FAULT], {"name": "größe"})
    documents.write(document, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == document
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_dash_writes_to_standard_output_alone(capsys):
    documents.write(documents.document("run", [], {}), "-")
    assert json.loads(capsys.readouterr().out)["command"] == "run"


def test_numpy_values_become_numbers(tmp_path):
    body = {"scalar": np.float32(0.5), "array": np.array([1.0, np.nan])}
    documents.write(documents.document("run", [], body), tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["run"] == {"scalar": 0.5, "array": [1.0, "nan"]}


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    target = tmp_path / "out.json"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        documents.write({}, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_value_that_json_cannot_hold_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        documents.write({"a": object()}, tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing/out.json", "--json missing/out.json: there is no directory missing; create it or give another path"),
        ("folder", "--json folder is a directory; give the name of a file in it"),
        ("file/out.json", "--json file/out.json: there is no directory file; create it or give another path"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as error:
        documents.check(path)
    assert str(error.value) == said


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_directory_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written; give another path"):
        documents.check(tmp_path / "out.json")


def test_a_path_that_can_be_written_is_accepted_and_nothing_is_made(tmp_path):
    documents.check(tmp_path / "out.json")
    documents.check("-")
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_into_not_replaced():
    documents.write({}, "/dev/null")
    assert Path("/dev/null").is_char_device()
