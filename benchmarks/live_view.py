"""What the live view takes of a training's time, on a terminal of 120 by 40, with curves and a map of eight leaves to draw.

Each run is a process of its own. Its loop is that of `nandetect train`, which calls the view between two steps: the time inside those
calls, over the time of the run, is the most that the view can cost. The speed beside that of plain lines, in turns, says what it did cost.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from measure import ratios, spread

SIZE = (120, 40)


def measured(seconds: float, how: str) -> dict[str, Any]:
    """Of one run on a terminal of its own, `view` or `plain`."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        process, terminal = pty.fork()
        if process == 0:
            environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(SIZE[0]), "LINES": str(SIZE[1])}
            os.execve(sys.executable, [sys.executable, __file__, "--inside", how, str(out), "--seconds", str(seconds)], environment)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        while True:
            try:
                if not os.read(terminal, 65536):
                    break
            except OSError:
                break
        os.close(terminal)
        os.waitpid(process, 0)
        return json.loads(out.read_text())


def inside(how: str, out: str, seconds: float) -> None:
    """The run itself; the step takes some 1.5 ms on two CPU cores."""
    from nandetect.cli import train_live
    from nandetect.train.loop import run
    from nandetect.train.observers import Observer
    from nandetect.train.settings import TrainSettings

    settings = TrainSettings(hidden=(256, 128, 64), batch_size=256, time_limit=seconds)
    spent = [0.0]

    class Timed(Observer):
        """The view, with the time inside of it."""

        def chunk(self, history: Any) -> None:
            began = time.perf_counter()
            view.chunk(history)
            spent[0] += time.perf_counter() - began

        def notice(self, snapshot: Any) -> None:
            began = time.perf_counter()
            view.notice(snapshot)
            spent[0] += time.perf_counter() - began

    with train_live.view(settings, wanted=how == "view") as view:
        result = run(settings, Timed())
    share = spent[0] / result.seconds if result.seconds else 0.0
    Path(out).write_text(json.dumps({"rate": result.steps_per_second, "share": share}))


def rates(runs: list[dict[str, Any]]) -> list[float]:
    return [run["rate"] for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        inside(*asked.inside, asked.seconds)
        return
    plain, view, again = [], [], []
    for _ in range(asked.rounds):
        for kind, into in (("plain", plain), ("view", view), ("plain", again)):
            into.append(measured(asked.seconds, kind))
    print(f"a step takes {spread([1000 / one for one in rates(plain)], ' ms')} with plain lines")
    print(f"the time inside the view, over that of the run: {spread([100 * run['share'] for run in view], ' %')}")
    print(f"speed with the live view over plain lines: {spread(ratios(rates(view), rates(plain)))}")
    print(f"plain lines over themselves:               {spread(ratios(rates(again), rates(plain)))}")


if __name__ == "__main__":
    main()
