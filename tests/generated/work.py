"""A process that checks a range of seeds: a line of JSON for each, in `records.jsonl`. `python work.py FIRST COUNT FOLDER [--x64]`."""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import sys
import time
from pathlib import Path


def prepare(x64: bool) -> None:
    """Two virtual devices, and double precision where it is asked for. To be called before anything is computed."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_enable_x64", x64)


def main(first: int, count: int, folder: Path, x64: bool) -> None:
    """Check the seeds from `first` on."""
    prepare(x64)
    from generated.checks import failures_of
    from generated.steps import generate

    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(1800, exit=True)
        began, cpu = time.perf_counter(), time.process_time()
        program = generate(seed, x64)
        checks = failures_of(program, folder)
        record = {
            "seed": seed,
            "x64": x64,
            "fault": program.fault,
            "kind": program.kind,
            "dtype": program.dtype,
            "path": program.path,
            "made": checks.made,
            "spent": checks.seconds,
            "failures": [dataclasses.asdict(failure) for failure in checks.failures],
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
        }
        if not checks.failures:
            (folder / f"seed_{seed}.py").unlink()
        with (folder / "records.jsonl").open("a") as records:
            records.write(json.dumps(record) + "\n")


def shrink(seed: int, folder: Path, x64: bool) -> str:
    """The program of a seed, cut as far as its first failure stays what it is; that failure stands below it."""
    prepare(x64)
    from generated.checks import check
    from generated.shrink import shrunk
    from generated.steps import generate

    folder.mkdir(parents=True, exist_ok=True)
    program, path = generate(seed, x64), folder / f"shrunk_{seed}.py"
    first = check(program.source, path, seed).failures
    if not first:
        return f"seed {seed} does not fail"

    def fails(source: str) -> bool:
        try:
            found = check(source, path, seed, only=first[0].check).failures
        except (SyntaxError, ValueError):
            return False
        return any((failure.check, failure.kind) == (first[0].check, first[0].kind) for failure in found)

    source = shrunk(program.source, fails)
    found = check(source, path, seed).failures
    return "\n".join([source, *(f"{failure.check}: {failure.kind}\n{failure.said}" for failure in found)])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), "--x64" in sys.argv)
