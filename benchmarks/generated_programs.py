"""Generated programs under `nd.locate`, `nd.guard` and `nandetect run`, each against the fault that was planted in it.

`--shrink SEED` cuts one failing program to a few lines that still fail in the same way.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

# Compiled operations pile up in a process: each checks this many programs and ends.
CHUNK = 250
# Each process of so many compiles its programs with the effort that everybody's are compiled with.
OPTIMIZED = 8
RIGHT = "right"


def main() -> None:
    """Check the programs and print the table, or shrink one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("generated"))
    parser.add_argument("--x64", action="store_true", help="every fourth process computes in double precision")
    parser.add_argument("--shrink", type=int, metavar="SEED")
    given = parser.parse_args()
    if given.shrink is not None:
        from generated.work import shrink

        print(shrink(given.shrink, given.out, given.x64))
        return
    began = time.perf_counter()
    records = checked(given.first, given.seeds, given.workers, given.out, given.x64)
    print(table(records, time.perf_counter() - began, given.workers))


def checked(first: int, count: int, workers: int, out: Path, x64: bool) -> list[dict]:
    """The record of each seed. A process that died or hung leaves a record for the seed that it was at, and another goes on after it."""
    out.mkdir(parents=True, exist_ok=True)
    todo = [(at, min(CHUNK, first + count - at), x64 and at // CHUNK % 4 == 3) for at in range(first, first + count, CHUNK)]
    running: list[tuple[subprocess.Popen, int, int, bool]] = []
    records: list[dict] = []
    while todo or running:
        while todo and len(running) < workers:
            at, size, double = todo.pop(0)
            running.append((_start(at, size, double, out), at, size, double))
        time.sleep(0.5)
        for worker in [worker for worker in running if worker[0].poll() is not None]:
            running.remove(worker)
            process, at, size, double = worker
            shutil.rmtree(_folder(out, at) / "compiled", ignore_errors=True)
            made = _records(_folder(out, at))
            records += made
            if len(made) < size:
                died = at + len(made)
                failure = {"check": "process", "kind": "died", "said": f"exit code {process.returncode}: {_folder(out, at) / 'err'}"}
                records.append(
                    {
                        "seed": died,
                        "x64": double,
                        "fault": "?",
                        "kind": "?",
                        "dtype": "?",
                        "path": [],
                        "made": {"process": 1},
                        "failures": [failure],
                        "cpu": 0.0,
                    }
                )
                if died + 1 < at + size:
                    todo.insert(0, (died + 1, at + size - died - 1, double))
            print(
                f"{len(records)} programs, {sum(bool(record['failures']) for record in records)} with failures", file=sys.stderr, flush=True
            )
    return sorted(records, key=lambda record: record["seed"])


def _folder(out: Path, first: int) -> Path:
    return out / f"from_{first}"


def _start(first: int, count: int, x64: bool, out: Path) -> subprocess.Popen:
    folder = _folder(out, first)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]),
        # What locate compiles, guard and run compile again.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, str(TESTS / "generated" / "work.py"), str(first), str(count), str(folder), *["--x64"] * x64]
    command += ["--optimized"] * (first // CHUNK % OPTIMIZED == 0)
    with (folder / "err").open("w") as err:
        return subprocess.Popen(command, stdout=err, stderr=err, env=environment)


def _records(folder: Path) -> list[dict]:
    file = folder / "records.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(records: list[dict], seconds: float, workers: int) -> str:
    """The counts by check, by construct, by kind of step and by fault; then each failure with its seed."""
    lines = [f"{len(records)} programs in {seconds:.0f} s with {workers} workers: {seconds * workers / max(len(records), 1):.2f} s each"]
    made: collections.Counter[str] = collections.Counter()
    bad: collections.Counter[tuple[str, str]] = collections.Counter()
    for record in records:
        made.update(record["made"])
        bad.update({(failure["check"], failure["kind"]) for failure in record["failures"]})
    for check, count in made.items():
        kinds = ", ".join(f"{kind} {number}" for (name, kind), number in sorted(bad.items()) if name == check)
        lines.append(f"{check:8} {count:6} {kinds or 'all right'}")
    for title, names in (
        ("construct", lambda record: record["path"] or ["none"]),
        ("step", lambda record: [record["kind"]]),
        ("type", lambda record: [record["dtype"]]),
        ("fault", lambda record: [record["fault"]]),
    ):
        lines += ["", f"{title:40} programs  right"]
        total: collections.Counter[str] = collections.Counter()
        right: collections.Counter[str] = collections.Counter()
        for record in records:
            total.update(set(names(record)))
            right.update(set(names(record)) if not record["failures"] else set())
        lines += [f"{name:40} {count:8} {right[name]:6}" for name, count in sorted(total.items())]
    lines += [""]
    for record in records:
        for failure in record["failures"]:
            said = failure["said"].strip().splitlines()
            told = said[-1] if failure["kind"] in ("crash", "hang") else said[0]
            lines.append(f"seed {record['seed']}{' x64' * record['x64']}: {failure['check']} {failure['kind']}: {told[:150]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
