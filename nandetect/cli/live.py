"""The progress of a long command, on standard error: one live line or a live screen on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

# Seconds between plain lines.
_SECONDS_A_LINE = 2.0
# Seconds between frames of a screen: more where drawing would take a larger share of the time than _SHARE.
_SECONDS_A_FRAME, _SHARE = 0.1, 0.015

# A frame of the width and height that it is asked for.
Drawing = Callable[[int, int], "Text"]


@contextmanager
def lines() -> Iterator[Callable[[str], None]]:
    """A function that takes lines as they come: shown in place of one another on a terminal, written now and then elsewhere."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield plain_lines()
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda line: live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)


def terminal() -> Console | None:
    """Standard error as it is now, whatever is redirected later; None where no screen can be drawn on it."""
    from rich.console import Console

    console = Console(file=sys.stderr)
    return console if console.is_terminal and not console.is_dumb_terminal else None


@contextmanager
def screen(console: Console) -> Iterator[Screen]:
    """The whole terminal to draw frames on. It is as before when the context ends, also by Ctrl-C, SIGTERM or an exception.

    What the program prints meanwhile would break the picture: it is written when the screen is given back.
    """
    from rich.live import Live

    out, err = sys.stdout, sys.stderr
    printed, warned = io.StringIO(), io.StringIO()
    try:
        with (
            _terminated_by_exception(),
            Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
            redirect_stdout(printed),
            redirect_stderr(warned),
        ):
            yield Screen(live)
    finally:
        for stream, held in ((out, printed), (err, warned)):
            stream.write(held.getvalue())
            stream.flush()


class Screen:
    """Draws frames, but not more often than it should; its size is asked for with each frame."""

    def __init__(self, live: Live):
        self._live = live
        self._next = 0.0

    def draw(self, drawing: Drawing) -> None:
        """Draw a frame of the terminal's size, unless the last one was drawn a moment ago."""
        began = time.monotonic()
        if began < self._next:
            return
        width, height = self._live.console.size
        self._live.update(drawing(width, height), refresh=True)
        drawn = time.monotonic()
        self._next = max(began + _SECONDS_A_FRAME, drawn + (drawn - began) / _SHARE)


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """SIGTERM raises `SystemExit` in the context, so that every `finally` runs."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def plain_lines() -> Callable[[str], None]:
    """A function that takes lines, and writes one of them now and then."""
    last = -_SECONDS_A_LINE

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_A_LINE:
            last = time.monotonic()
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    return say
