"""A program in files of its own, which the tests of `nandetect run` start under it or plainly."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import nandetect


class Program:
    """The files of a program in a folder of its own, run under nandetect or plainly."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, **files):
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text))

    def start(self, *arguments, plain=False):
        command = [sys.executable] if plain else [sys.executable, "-m", "nandetect", "run"]
        # The nandetect that is tested, also where another one is installed.
        tested = str(Path(nandetect.__file__).parents[1])
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": tested, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [*command, *arguments], cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments, plain=False):
        process = self.start(*arguments, plain=plain)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)
