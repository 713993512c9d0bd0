"""What a command writes and where: a document stands alone, and an output that cannot be written is no fault that was found."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from commands import COMMAND, nandetect_command

LOUD = """
import atexit, os
import jax, jax.numpy as jnp

print("at import")
os.system("echo of a child")
atexit.register(print, "at the end")

def loss(x):
    return jnp.log(jnp.sum(jnp.exp(x)))

def other(x):
    return jax.nn.logsumexp(x)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "loud.py:loss", "--shape", "f32[3]"),
        ("diff-loss", "loud.py:loss", "loud.py:other", "--labels", "none", "--shape", "4"),
        ("run", "loud.py"),
    ],
    ids=lambda command: command[0],
)
def test_the_document_is_alone_on_standard_output_whatever_the_user_s_file_prints(tmp_path, command):
    (tmp_path / "loud.py").write_text(LOUD)
    name, *rest = command
    done = nandetect_command(name, "--json", "-", *rest, cwd=tmp_path)
    assert json.loads(done.stdout)["command"] == name
    assert all(said in done.stderr for said in ("at import", "of a child", "at the end"))


def closed(redirections, *arguments):
    """A command in a shell with its streams redirected: its exit code, and what it said on standard error."""
    words = " ".join([*(f"'{word}'" for word in (*COMMAND, *arguments)), redirections])
    environment = {**os.environ, "XDG_STATE_HOME": "/nonexistent"}
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, env=environment, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [("show",), ("--help",), ("show", "--json", "-")], ids=" ".join)
def test_an_output_that_cannot_be_written_is_said_in_one_line(arguments):
    full = closed(">/dev/full", *arguments)
    assert full == (2, "nandetect: standard output could not be written: No space left on device\n")
    code, said = closed(">&-", *arguments)
    assert code == 2 and said.endswith("standard output is closed\n") and len(said.splitlines()) == 1


def test_without_a_standard_error_the_answer_is_the_same():
    assert closed("2>&-", "show") == (0, "")
    assert closed("2>&-", "show", "nothing-of-that-name") == (2, "")


def test_a_reader_that_goes_away_is_told_nothing_and_no_fault_is_claimed():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([*COMMAND, "show"], stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "")


@pytest.mark.parametrize("redirections", [">&-", "2>&-"])
def test_a_program_under_run_has_the_streams_that_it_would_have(tmp_path, redirections):
    file = tmp_path / "prints.py"
    file.write_text("import sys\nprint('said')\nsys.exit(3 + (sys.stdout is None) + 2 * (sys.stderr is None))")
    code, said = closed(redirections, "run", str(file))
    assert code == (4 if redirections == ">&-" else 5)
    assert "Traceback" not in said
