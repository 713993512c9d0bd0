"""The command line as a shell sees it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
from commands import COMMAND, nandetect_command, refused

import nandetect
from nandetect import cli
from nandetect.cli.commands import COMMANDS

PROGRAM = "import jax.numpy as jnp\n\ndef loss(w, x):\n    return jnp.sum(jnp.log(x @ w))\n"
SHAPES = ("--shape", "f32[3]", "--shape", "f32[4,3]")


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


def test_help_names_every_command():
    done = nandetect_command("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


def test_every_file_with_a_command_is_in_the_list_of_commands():
    files = Path(cli.__file__).parent.glob("*.py")
    having = {file.stem for file in files if re.search(r"^def command\(", file.read_text(), re.M)}
    assert having == {command.replace("-", "_") for command in COMMANDS}


def test_version_is_that_of_the_package():
    done = nandetect_command("--version")
    assert (done.returncode, done.stdout) == (0, f"nandetect {nandetect.__version__}\n")


def test_an_unknown_command_exits_2():
    done = nandetect_command("trian")
    assert done.returncode == 2
    assert "trian" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_option_exits_2():
    done = nandetect_command("inspect", "--colour", "red", "x.py:f")
    assert done.returncode == 2
    assert "--colour" in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_refused_in_one_line():
    assert refused("inspect", "nowhere.py:loss") == "nandetect: there is no file nowhere.py"


def test_a_function_that_is_not_there_is_refused_with_a_near_name(program):
    assert refused("inspect", f"{program}:los") == f"nandetect: {program} has no `los`; it has loss"


def test_a_directory_that_is_not_there_is_refused_before_the_work(program):
    line = refused("inspect", f"{program}:loss", *SHAPES, "--json", program.parent / "no" / "out.json")
    assert line.startswith("nandetect: --json")


def test_inspect_prints_plain_text_without_a_terminal(program):
    done = nandetect_command("inspect", f"{program}:loss", *SHAPES)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "log f32[4] -> f32[4]" in done.stdout


def test_json_on_standard_output_is_all_that_is_written_there(program):
    done = nandetect_command("inspect", f"{program}:loss", *SHAPES, "--json", "-")
    document = json.loads(done.stdout)
    schema = json.loads((Path(nandetect.__file__).parent / "render" / "schema.json").read_text())
    jsonschema.validate(document, schema)
    assert (document["command"], document["findings"]) == ("inspect", [])
    assert [equation["primitive"] for equation in document["inspect"]["program"]["equations"]] == ["dot_general", "log", "reduce_sum"]


def test_json_goes_to_a_file_and_the_text_to_standard_output(program):
    out = program.with_suffix(".json")
    done = nandetect_command("inspect", f"{program}:loss", *SHAPES, "--json", out)
    assert done.stdout.startswith(f"{program}:loss")
    assert json.loads(out.read_text())["inspect"]["target"] == f"{program}:loss"


def test_a_reader_that_goes_away_leaves_no_traceback(program):
    writer = subprocess.Popen(
        [*COMMAND, "inspect", f"{program}:loss", *SHAPES], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    error = writer.stderr.read().decode()
    writer.wait(timeout=300)
    writer.stderr.close()
    assert "Traceback" not in error and "Exception ignored" not in error


def test_output_in_a_narrow_encoding_does_not_crash(program):
    program.write_text(PROGRAM.replace("return", "# Verlust π → ∞\n    return"))
    done = nandetect_command("inspect", f"{program}:loss", *SHAPES, PYTHONIOENCODING="ascii")
    assert "Traceback" not in done.stderr
    assert "log f32[4] -> f32[4]" in done.stdout


def test_the_working_directory_is_where_modules_are_looked_for(program):
    done = nandetect_command("inspect", "program:loss", *SHAPES, cwd=program.parent)
    assert done.returncode == 0
    assert "program.py" in done.stdout
