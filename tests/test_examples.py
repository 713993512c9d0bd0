"""Every example trains, and says with --break where it broke: on the line that it marks itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MARK = "# <-- origin"

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="no examples beside the tests: they were taken out of the checkout")


def run(example: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The example in a process of its own, where it can be run."""
    for name in re.findall(r"^(?:import|from) (\w+)", example.read_text(), re.M):
        if find_spec(name) is None:
            pytest.skip(f"{example.name} needs {name}, which is not installed")
        if name == "equinox" and jax.__version_info__ < (0, 7, 2):
            pytest.skip("equinox's filter_jit with JAX before 0.7.2 aborts Python at exit, also without nandetect")
    command = [sys.executable, str(example.relative_to(ROOT)), *arguments]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_trains_and_prints_one_line(example):
    done = run(example)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[^\n]+: loss [-+.e\d]+ after \d+ steps.*\n", done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_a_broken_example_reports_the_line_that_it_marks_and_exits_1(example):
    (marked,) = [number for number, line in enumerate(example.read_text().splitlines(), 1) if line.endswith(MARK)]
    done = run(example, "--break")
    assert done.returncode == 1, done.stderr
    assert re.match(rf"error: .* of step \d+ .*\n  --> examples/{example.name}:{marked}:", done.stdout), done.stdout
    assert done.stderr == ""
