"""What the live view takes of the speed: `nandetect train` in a terminal of 120 by 40, with the view and with plain lines, in turns."""

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
from pathlib import Path

from measure import ratios, spread

# A step of some 1.5 ms on two CPU cores.
TRAIN = ("train", "--hidden", "256,128", "--batch-size", "256", "--no-record")


def steps_per_second(seconds: float, *options: str) -> float:
    """Of one run, in a process and on a terminal of its own."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        command = [sys.executable, "-m", "nandetect", *TRAIN, "--time-limit", f"{seconds}s", "--json", str(result), *options]
        process, terminal = pty.fork()
        if process == 0:
            os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color"})
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        while True:
            try:
                if not os.read(terminal, 65536):
                    break
            except OSError:
                break
        os.close(terminal)
        os.waitpid(process, 0)
        return json.loads(result.read_text())["train"]["steps_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0)
    asked = parser.parse_args()
    view, plain, again = [], [], []
    for _ in range(asked.rounds):
        plain.append(steps_per_second(asked.seconds, "--no-live"))
        view.append(steps_per_second(asked.seconds))
        again.append(steps_per_second(asked.seconds, "--no-live"))
    print(f"a step takes {spread([1000 / rate for rate in plain], ' ms')} with plain lines")
    print(f"speed with the live view over plain lines: {spread(ratios(view, plain))}")
    print(f"plain lines over themselves:               {spread(ratios(again, plain))}")


if __name__ == "__main__":
    main()
