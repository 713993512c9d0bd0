"""What the benchmarks share: a fresh process for each measurement, and the spread of what came back."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def in_fresh_process(script: str, *arguments: str) -> dict[str, Any]:
    """Run `script` with arguments in its own interpreter; the last line that it prints is a JSON object."""
    done = subprocess.run([sys.executable, str(Path(script)), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def settle_allocator() -> None:
    """Bring malloc into the state of a program that has loaded its data: glibc then keeps what is freed.

    Until a block of some megabytes was freed, it hands memory of that size back to the kernel and faults it in again, step by step, as it
    happens to lie: up to 90 faults a step of the middle MLP, a tenth of its time, in one loop and not in another.
    """
    np.empty(31 * 2**20, np.uint8)


def peak_megabytes() -> float:
    """The largest resident size this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def spread(values: Sequence[float], unit: str = "") -> str:
    """min / median / max, as every figure of these benchmarks is printed."""
    return " / ".join(f"{value:.3g}{unit}" for value in (min(values), statistics.median(values), max(values)))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """One ratio for each round, so that a slow minute of the machine falls on both sides."""
    return [a / b for a, b in zip(above, below, strict=True)]
