"""Programs that nobody wrote: `nd.locate`, `nd.guard` and `nandetect run` name the line that a fault was planted in, and no other.

`benchmarks/generated_programs.py` checks ten thousand of them, and shrinks one that fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from generated.faults import FORWARD, GRADIENT, MARK
from generated.shrink import shrunk
from generated.steps import generate

TESTS = Path(__file__).parents[1]
# Some dozens here, for the time that they take; the benchmark goes on from there.
COUNT = 60


def checked(first, folder):
    """The records of the seeds from `first` on, made in a process that has two devices."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    work = [sys.executable, str(TESTS / "generated" / "work.py"), str(first), str(COUNT), str(folder)]
    process = subprocess.run(work, env=environment, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def told(record, folder):
    """The failures of one program, with its source."""
    source = (folder / f"seed_{record['seed']}.py").read_text()
    return "\n".join([source, *(f"{failure['check']}: {failure['kind']}\n{failure['said']}" for failure in record["failures"])])


def test_the_planted_line_is_named_and_the_sound_twin_is_left_in_peace(tmp_path):
    records = checked(0, tmp_path)
    assert len(records) == COUNT
    failures = [told(record, tmp_path) for record in records if record["failures"]]
    assert not failures, "\n\n".join(failures)


def test_a_seed_is_always_the_same_program_with_one_marked_line():
    for seed in range(200):
        program = generate(seed)
        assert program == generate(seed)
        compile(program.source, f"seed_{seed}.py", "exec")
        assert program.source.count(MARK) == 1


def test_every_fault_is_planted_sooner_or_later():
    assert {generate(seed).fault for seed in range(2000)} == {fault.name for fault in (*FORWARD, *GRADIENT)}


def test_a_failing_program_is_cut_to_what_fails():
    program = generate(3)

    def fails(source):
        compile(source, "shrunk.py", "exec")
        return "** 3" in source

    source = shrunk(program.source, fails)
    assert source.count(MARK) == 1
    assert len(source.splitlines()) < len(program.source.splitlines()) / 2
