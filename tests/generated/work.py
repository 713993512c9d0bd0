"""A process that checks a range of seeds: a line of JSON for each, in `records.jsonl`.

`python work.py FIRST COUNT FOLDER [--x64] [--optimized]`.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path

# Compiling is most of the work, and a program runs but a few times: a fifth of the time, for machine code that nobody has polished.
QUICK_TO_COMPILE = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# Unknown to JAX 0.11 and later, which dies of it.
WITHOUT_FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def prepare(x64: bool, optimized: bool = False) -> None:
    """Two virtual devices, and double precision where it is asked for. To be called before JAX is imported.

    Programs are compiled as quickly as XLA can, or, if `optimized`, as everybody's are.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if not optimized:
        release = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
        flags = [*QUICK_TO_COMPILE, *[WITHOUT_FUSION_EMITTERS] * (release < (0, 11))]
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])
    import jax

    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_enable_x64", x64)


def main(first: int, count: int, folder: Path, x64: bool, optimized: bool) -> None:
    """Check the seeds from `first` on."""
    prepare(x64, optimized)
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
            "optimized": optimized,
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
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), "--x64" in sys.argv, "--optimized" in sys.argv)
