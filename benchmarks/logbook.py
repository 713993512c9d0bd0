"""A run's record: its size after 1,000,000 steps, what a kill costs it, readers beside the writer, and what writing takes of the time.

`python benchmarks/logbook.py [--only size|kill|readers|cost]`
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import spread

from nandetect.history import History, Leaf
from nandetect.logbook import ELAPSED, Logbook, read

SERIES = ("loss", "accuracy", "gradient", "weight", "update", "along", "along_before")
LAYERS = (
    "gradient",
    "gradient_max",
    "gradient_zero",
    "gradient_tiny",
    "gradient_idle",
    "gradient_nonfinite",
    "weight",
    "weight_max",
    "update",
)
# The writer below says on every line which step it has put down, and when.
WRITER = """
import sys, time
sys.path.insert(0, {here!r})
from logbook import made, leaves
from nandetect.logbook import Logbook

kept = leaves(6)
book = Logbook({file!r}, kept, {{"model": "mlp"}})
source = made(100_000, kept)
for at in range(0, 100_000, 32):
    book.append(source(at, at + 32))
    print(at + 31, time.time(), flush=True)
    time.sleep(0.0015 * 32)
"""


def leaves(count: int) -> tuple[Leaf, ...]:
    shapes = ((128, 128), (128,))
    return tuple(Leaf(path=f"layers[{at // 2}].{'wb'[at % 2]}", shape=shapes[at % 2], dtype="float32") for at in range(count))


def made(steps: int, kept: tuple[Leaf, ...], every: int = 1) -> Callable[[int, int], History]:
    """A function that gives the points of a made-up run from one step to another: noise, with one spike each of loss, total and a leaf.

    Of the layers all but the gradient's norm are measured in every so many steps only.
    """
    noise = np.random.default_rng(0).lognormal(size=4096).astype(np.float32)
    wide = np.random.default_rng(1).lognormal(size=(4096, len(kept))).astype(np.float32)

    def piece(start: int, end: int) -> History:
        at = np.arange(start, end)
        series = {name: noise[(at * (3 + place)) % 4096] for place, name in enumerate(SERIES)}
        layers = {name: wide[(at * (5 + place)) % 4096] for place, name in enumerate(LAYERS)}
        for name in LAYERS[1:]:
            layers[name][at % every != 0] = np.nan
        series["loss"][at == steps // 3] = 1e6
        series["gradient"][at == steps // 5] = 1e7
        layers["gradient"][at == steps // 7, -1] = 1e8
        return History(leaves=kept, steps=at, series=series, layers=layers)

    return piece


def size(steps: int) -> None:
    print(f"size after {steps:,} steps, every one given")
    for count, every in ((6, 1), (100, 1), (100, 50)):
        kept = leaves(count)
        source = made(steps, kept, every)
        with tempfile.TemporaryDirectory() as directory:
            book = Logbook(directory, kept, {"model": "mlp"})
            assert book.path is not None
            started, largest = time.process_time(), 0
            for at in range(0, steps, 320):
                book.append(source(at, min(at + 320, steps)))
                book.flush()
                if at % 32_000 == 0:
                    largest = max(largest, sum(file.stat().st_size for file in Path(directory).iterdir()))
            book.close()
            took = time.process_time() - started
            seen = time.perf_counter()
            run = read(book.path)
            seen = time.perf_counter() - seen
        history = run.history
        spikes = (history.series["loss"].max(), history.series["gradient"].max(), history.layers["gradient"].max())
        print(
            f"  {count:>3} leaves, all of them measured in 1 of {every} steps: {run.entry.size / 1e6:.1f} MB at the end, "
            f"{largest / 1e6:.1f} MB at most, {len(history):,} points; read in {seen:.2f} s; {took / steps * 1e6:.1f} us of CPU a step; "
            f"spikes kept: {spikes == (1e6, 1e7, 1e8)}"
        )


def kill(times: int) -> None:
    missing, opened, partial = [], 0, 0
    chance = random.Random(0)
    for _ in range(times):
        with tempfile.TemporaryDirectory() as directory:
            script = WRITER.format(here=str(Path(__file__).parent), file=f"{directory}/run.sqlite")
            writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
            assert writer.stdout is not None
            said = [writer.stdout.readline()]
            listener = threading.Thread(target=said.extend, args=(writer.stdout,), daemon=True)
            listener.start()
            time.sleep(chance.uniform(0.0, 3.0))
            killed = time.time()
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            listener.join()
            given = [(int(step), float(when)) for step, when in (line.split() for line in said if line.endswith("\n"))]
            partial += len([file for file in Path(directory).iterdir() if file.suffix == ".part"])
            run = read(Path(directory) / "run.sqlite")
            opened += run.state == "interrupted"
            assert list(run.history.steps) == list(range(run.entry.steps))
            lost = [when for step, when in given if step >= run.entry.steps]
            missing.append(killed - min(lost, default=killed))
    print(f"killed {times} times at random: opened {opened} times; seconds missing {spread(missing, ' s')}; half-made files left {partial}")


def readers(seconds: float) -> None:
    kept = leaves(20)
    source = made(1_000_000, kept)
    with tempfile.TemporaryDirectory() as directory:
        book = Logbook(directory, kept, {"model": "mlp"})
        path = book.path
        assert path is not None
        script = (
            "import sys, time; from pathlib import Path; from nandetect.logbook import read\n"
            f"end = time.time() + {seconds}; times = 0\n"
            f"while time.time() < end:\n    run = read(Path({str(path)!r})); times += 1\n"
            "    assert list(run.history.steps) == list(range(run.entry.steps))\nprint(times)"
        )
        reading = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        writes, at = [], 0
        while any(one.poll() is None for one in reading):
            book.append(source(at, at + 32))
            at += 32
            started = time.perf_counter()
            book.flush()
            writes.append(1000 * (time.perf_counter() - started))
            time.sleep(0.02)
        book.close()
        times = [int(one.communicate()[0]) for one in reading]
    print(f"two readers and the writer at once: read {times[0]} and {times[1]} times; {len(writes)} writes took {spread(writes, ' ms')}")


def cost(seconds: float) -> None:
    """The share of one core that the writer takes at the rate of a 1.5 ms step."""
    print("CPU of writing at 667 steps a second")
    for count in (6, 100):
        kept = leaves(count)
        source = made(1_000_000, kept)
        with tempfile.TemporaryDirectory() as directory:
            book = Logbook(directory, kept, {"model": "mlp"})
            pieces = [source(at, at + 32) for at in range(0, 32 * int(seconds / 0.048), 32)]
            started, used = time.perf_counter(), time.process_time()
            for piece in pieces:
                book.append(piece)
                time.sleep(0.048)
            book.close()
            share = (time.process_time() - used) / (time.perf_counter() - started)
        print(f"  {count:>3} leaves: {share:.2%} of one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("size", "kill", "readers", "cost"))
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=50)
    asked = parser.parse_args()
    print(f"the record adds one series of its own, `{ELAPSED}`")
    parts = {
        "size": lambda: size(asked.steps),
        "kill": lambda: kill(asked.kills),
        "readers": lambda: readers(5.0),
        "cost": lambda: cost(10.0),
    }
    for name, part in parts.items():
        if asked.only in (None, name):
            part()


if __name__ == "__main__":
    main()
