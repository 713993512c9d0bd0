"""The live view: frames as whole text, and a terminal that is given back as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from logbooks import LEAVES, floats
from rich.console import Console

from nandetect import wording
from nandetect.cli import live
from nandetect.cli.frame import Progress, frame
from nandetect.cli.train_live import Picture, progress
from nandetect.history import History, Leaf
from nandetect.records import Finding
from nandetect.train.settings import Snapshot, TrainSettings

NOW = Snapshot(step=127, epoch=3.2, loss=0.0163, accuracy=0.996, gradient_norm=0.03, steps_per_second=431.2)
TOLD = {
    "title": "mlp on digits, adam, learning rate 0.004",
    "progress": Progress(done="step 128 of 2,000, epoch 3.2", share=0.064, left=125.0),
}
FOUND = [
    Finding(
        rule="gradient-spike", code="ND303", severity="warning", message="the gradient of `dense.kernel` was 35 times its median at step 64"
    ),
    Finding(rule="frozen-parameters", code="ND310", severity="error", message="`dense.bias` has not moved since step 0"),
]


def history(steps: int, leaves: tuple[Leaf, ...] = LEAVES) -> History:
    """A loss that halves every 16 steps; of the leaves the first learns, the second does not, the others are not finite at the end."""
    at = np.arange(steps)
    loss = 4.0 * 0.5 ** (at / 16)
    layers = {"gradient": np.zeros((steps, len(leaves))), "gradient_nonfinite": np.zeros((steps, len(leaves)))}
    layers["gradient"][:, :1] = 2 * loss[:, None]
    layers["gradient_nonfinite"][-steps // 4 :, 2:] = 5
    return History(
        leaves=leaves, steps=at, series=floats({"loss": loss, "accuracy": 1 - loss / 4, "gradient": 2 * loss}), layers=floats(layers)
    )


WIDE = """\
mlp on digits, adam, learning rate 0.004                             431 steps/s
━━───────────────────────   6%   step 128 of 2,000, epoch 3.2   2 min 5 s left

loss 0.0163 (log scale)                  accuracy 99.6%
       4 │⠓⢄⡀                                100% │             ⢀⣀⡤⠤⠤⠒⠒⠒⠒⠒⠚⠉⠉⠉⠉⠉
         │  ⠙⠦⣀                                   │         ⢀⡤⠖⠋⠁
         │    ⠈⠲⢄⡀                                │       ⣠⠖⠉
         │       ⠑⠦⡀                              │     ⢀⡔⠁
         │         ⠈⠲⣄                            │    ⢠⠊
         │            ⠑⢦⡀                         │   ⢀⠎
         │              ⠈⠢⣄                       │  ⢀⠎
         │                ⠈⠑⢤⡀                    │  ⡞
         │                   ⠙⠢⣄                  │ ⢰⠁
         │                     ⠈⠓⢤⡀               │⢀⠇
         │                        ⠙⠢⣀             │⡸
  0.0163 │                          ⠈⠳⢄        0% │⡇

gradient by layer  0.0326 ░▒▓█ 8
          dense.kernel ████████████▓▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒░░░░░░░░░░░░    0.0326
            dense.bias 00000000000000000000000000000000000000000000000         0
                       step 0                                      127

warning: the gradient of `dense.kernel` was 35 times its median at step 64
error: `dense.bias` has not moved since step 0"""
SMALL = """\
mlp on digits, adam, learn…  431 steps/s
step 128 of 2,000, epoch 3.2   2 min 5 s

loss 0.0163 (log scale)
       4 │⠙⠒⠢⢤⣀⡀
         │     ⠈⠉⠓⠢⠤⣄⣀
         │           ⠈⠉⠓⠒⠤⢄⣀
         │                  ⠉⠑⠒⠦⢤⣀⡀
  0.0163 │                        ⠉⠉⠒⠦⠤⣀

warning: the gradient of `dense.kernel`…
error: `dense.bias` has not moved since…"""
EMPTY = """\
mlp on digits, adam, learning rate 0.004
compiling the first step"""
ASCII = """\
mlp on digits, adam, learning rate 0.004                   431 steps/s
#--------------   6%   step 128 of 2,000, epoch 3.2   2 min 5 s left

loss 0.0163 (log scale)             accuracy 99.6%
       4 |**                            100% |           *************
         | ***                               |        ****
         |   ***                             |      **
         |     ***                           |    ***
         |       ***                         |   **
         |         ***                       |   *
         |            **                     |  **
         |              **                   | **
         |                **                 | *
         |                  **               |**
         |                    **             |*
  0.0163 |                      **        0% |*

gradient by layer  0.0326 .:+# 8
          dense.kernel #########++++++++++:::::::::.........    0.0326
            dense.bias 0000000000000000000000000000000000000         0
                   out 000000000000000000000000000!!!!!!!!!!         0
                       step 0                            127"""


def test_a_frame_has_progress_curves_layers_and_findings():
    assert frame(history(128), NOW, FOUND, 80, 24, **TOLD).plain == WIDE


def test_a_small_frame_has_what_matters_most():
    assert frame(history(128), NOW, FOUND, 40, 12, **TOLD).plain == SMALL


def test_a_frame_before_the_first_step():
    assert frame(History(), None, [], 80, 24, title=TOLD["title"], progress=Progress(done="compiling the first step")).plain == EMPTY


def test_a_frame_without_braille_is_ascii():
    text = frame(history(128, (*LEAVES, Leaf(path="out", shape=(3,), dtype="float32"))), NOW, [], 70, 22, **TOLD, braille=False).plain
    assert text == ASCII


@pytest.mark.parametrize("leaves", [0, 2, 200])
def test_a_frame_fits_every_size(leaves):
    many = tuple(Leaf(path=f"layers[{at}].attention.query.kernel", shape=(3,), dtype="float32") for at in range(leaves))
    seen = history(300, many)
    for width in (1, 20, 39, 63, 64, 100, 300):
        for height in (1, 2, 5, 11, 12, 13, 24, 80):
            lines = frame(seen, NOW, FOUND * 5, width, height, **TOLD).plain.split("\n")
            assert len(lines) <= height
            assert max(map(len, lines)) <= width


def test_more_leaves_than_rows_are_shown_together():
    many = tuple(Leaf(path=f"l{at}", shape=(3,), dtype="float32") for at in range(30))
    text = frame(history(64, many), NOW, [], 90, 24, **TOLD).plain
    assert "         l0 and 4 more " in text and "l29" not in text


def test_a_series_that_is_not_finite_is_said_to_be_so():
    seen = History(steps=np.arange(3), series={"loss": np.full(3, np.nan, np.float32)})
    assert "loss not finite" in frame(seen, NOW, [], 80, 24, **TOLD).plain


def test_a_loss_that_reaches_zero_is_drawn_on_a_logarithmic_axis_and_the_last_measured_value_is_told():
    loss, update = np.array([4.0, 1.0, 1e-3, -0.0]), np.array([0.5, 0.25, 0.125, np.nan])
    seen = History(steps=np.arange(4), series=floats({"loss": loss, "update": update}))
    lines = frame(seen, NOW, [], 80, 14, **TOLD).plain.split("\n")
    assert lines[3].split() == ["loss", "0", "(log", "scale)", "update", "0.125"]
    assert lines[4].split()[0] == "4" and lines[13].split()[0] == "0.001"


def test_the_map_is_coloured_from_cold_to_hot():
    console = Console(force_terminal=True, color_system="256", width=80)
    with console.capture() as held:
        console.print(frame(history(128), NOW, FOUND, 80, 24, **TOLD))
    painted = held.get()
    assert painted.index("38;5;202m") < painted.index("38;5;107m") < painted.index("38;5;17m")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, Progress(done="step 128 of 2,000, epoch 3.2", share=0.064, left=1872 / 431.2)),
        ({"steps": 128}, Progress(done="step 128 of 128, epoch 3.2", share=1.0, left=0.0)),
        ({"epochs": 10}, Progress(done="step 128 of 400, epoch 3.2 of 10", share=0.32, left=272 / 431.2)),
        ({"time_limit": 60.0}, Progress(done="step 128, epoch 3.2", share=0.25, left=45.0)),
    ],
)
def test_progress_is_of_what_was_asked_for(asked, said):
    assert progress(TrainSettings(**asked), NOW, 15.0) == said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (125, "2 min 5 s"), (3599, "59 min"), (12_000, "3 h 20 min"), (200_000, "2 d 7 h")],
)
def test_a_time_is_told_as_a_person_would(seconds, text):
    assert wording.run_time(seconds) == text


def screen(monkeypatch, cost: float) -> tuple[live.Screen, Callable[[float], None], list[Any]]:
    """A screen whose frames take this many seconds, its clock, and the list of what was drawn."""
    clock = SimpleNamespace(now=0.0)
    drawn: list[Any] = []
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)

    def pass_by(seconds: float) -> None:
        clock.now += seconds

    def update(text: Any, refresh: bool) -> None:
        drawn.append(text)
        pass_by(cost)

    return live.Screen(SimpleNamespace(console=SimpleNamespace(size=(80, 24)), update=update)), pass_by, drawn  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("cost", "most"), [(0.0, 100), (0.001, 100), (0.01, 15), (0.1, 2)])
def test_drawing_takes_a_tenth_of_a_second_a_frame_at_most_and_a_small_share_of_the_time(monkeypatch, cost, most):
    shown, pass_by, drawn = screen(monkeypatch, cost)
    for _ in range(1000):
        shown.draw(lambda width, height: (width, height))  # pyright: ignore[reportArgumentType]
        pass_by(0.01)
    assert 0.9 * most <= len(drawn) <= most + 1
    assert drawn[0] == (80, 24)


def test_a_long_run_is_drawn_from_a_bounded_number_of_points(monkeypatch):
    shown, pass_by, drawn = screen(monkeypatch, 0.0)
    picture = Picture(shown, TrainSettings(), braille=True)
    for at in range(0, 100_000, 1000):
        picture.chunk(History(steps=np.arange(at, at + 1000), series={"loss": np.ones(1000, np.float32)}))
        pass_by(1.0)
        picture.notice(NOW)
    assert len(drawn) == 100
    assert sum(map(len, picture._pieces)) <= 4000


def test_there_is_no_screen_where_there_is_no_terminal(capsys):
    assert live.terminal() is None


PROGRAM = """
import os, signal, sys, time
from rich.text import Text
from nandetect.cli import live

# Where the tests were started in the background, the program is born deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("before")
with live.screen(live.terminal()) as screen:
    print("meanwhile")
    last, until = None, time.time() + 20
    def size(width, height):
        global last
        last = (width, height)
        return Text(f"{{width}} by {{height}}")
    while time.time() < until:
        screen.draw(size)
        time.sleep(0.02)
        {act}
print("after")
"""


def on_a_terminal(act: str, *sizes: tuple[int, int]) -> tuple[str, int]:
    """What a program wrote on a terminal that takes these sizes one after another, and its exit code."""
    terminal, other = pty.openpty()
    # LINES and COLUMNS, which rich believes, may be set by readline behind Python's back: the program gets only what Python knows of.
    environment = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    environment |= {"TERM": "xterm-256color", "PYTHON_COLORS": "0"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(act=act)], stdin=other, stdout=other, stderr=other, env=environment)
    os.close(other)
    said, left = b"", [*sizes]
    while select.select([terminal], [], [], 30)[0]:
        if left:
            width, height = left[0]
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
            if f"{width} by {height}".encode() in said:
                left.pop(0)
        try:
            said += os.read(terminal, 65536)
        except OSError:
            break
    os.close(terminal)
    return said.decode().replace("\r\n", "\n"), process.wait()


ENTER, LEAVE, HIDE, SHOW = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


@pytest.mark.parametrize(
    ("act", "code", "last"),
    [
        ("break", 0, "meanwhile\nafter\n"),
        ("raise ValueError('broken')", 1, "ValueError: broken\n"),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 128 + signal.SIGTERM, "meanwhile\n"),
    ],
)
def test_the_terminal_is_given_back_however_it_ends(act, code, last):
    said, left = on_a_terminal(act)
    assert left == code
    assert [said.count(mark) for mark in (ENTER, LEAVE, HIDE, SHOW)] == [1, 1, 1, 1]
    assert said.index(HIDE) < said.index(SHOW)
    # Lines printed during the live view appear once the terminal's own screen is back.
    after = said[said.index(LEAVE) + len(LEAVE) :]
    assert after.startswith("meanwhile\n") and after.endswith(last)


def test_a_frame_has_the_size_that_the_terminal_has_now():
    said, _ = on_a_terminal("if last == (50, 20): break", (90, 30), (50, 20))
    assert said.index("90 by 30") < said.index("50 by 20")
