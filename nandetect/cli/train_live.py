"""`nandetect train` while it runs: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.cli import live, train_view
from nandetect.cli.frame import Progress, frame
from nandetect.train.observers import Observer

if TYPE_CHECKING:
    from rich.text import Text

    from nandetect.history import History
    from nandetect.records import Finding
    from nandetect.train.settings import Snapshot, TrainSettings

# The most points that are kept to be drawn; a terminal shows a few hundred.
_POINTS = 2000


@contextmanager
def view(settings: TrainSettings, wanted: bool = True) -> Iterator[Observer]:
    """The view of a run: a screen where one is wanted and there is a terminal, else lines."""
    from nandetect.render.curves import can_draw_braille

    console = live.terminal() if wanted else None
    if console is None:
        yield Lines()
        return
    with live.screen(console) as screen:
        shown = Picture(screen, settings, can_draw_braille(console.encoding))
        shown.draw()
        yield shown


class Opening(Observer):
    """Prints the findings before the first step in full, and keeps them as `told`."""

    def __init__(self, to_stderr: bool):
        self.told: Sequence[Finding] = ()
        self._to_stderr = to_stderr

    def begun(self, findings: Sequence[Finding]) -> None:
        self.told = findings
        train_view.first(findings, self._to_stderr)


class Lines(Observer):
    """A line now and then, and each finding at once."""

    def __init__(self) -> None:
        self._say = live.plain_lines()

    def found(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            sys.stderr.write(f"{finding.severity}: {finding.message}\n")
        sys.stderr.flush()

    def notice(self, snapshot: Snapshot) -> None:
        self._say(line(snapshot))


class Picture(Observer):
    """Frames on a screen."""

    def __init__(self, screen: live.Screen, settings: TrainSettings, braille: bool):
        self._screen, self._settings, self._braille = screen, settings, braille
        self._began = time.monotonic()
        self._snapshot: Snapshot | None = None
        self._findings: list[Finding] = []
        self._pieces: list[History] = []

    def chunk(self, history: History) -> None:
        self._pieces.append(history)

    def begun(self, findings: Sequence[Finding]) -> None:
        self._findings.extend(findings)
        self.draw()

    def found(self, findings: Sequence[Finding]) -> None:
        self._findings.extend(findings)

    def notice(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.draw()

    def draw(self) -> None:
        """Draw the next frame, if it is time to."""
        self._screen.draw(self._frame)

    def _frame(self, width: int, height: int) -> Text:
        return frame(
            self._history(),
            self._snapshot,
            self._findings,
            width,
            height,
            title=title(self._settings),
            progress=progress(self._settings, self._snapshot, time.monotonic() - self._began),
            braille=self._braille,
        )

    def _history(self) -> History:
        """All points so far, thinned where they are too many; the pieces become one."""
        from nandetect.history import join
        from nandetect.logbook import thin

        pieces = list(self._pieces)
        whole = join(pieces)
        if len(whole) > 2 * _POINTS:
            whole = thin(whole, _POINTS)
        self._pieces[: len(pieces)] = [whole] if len(whole) else []
        return whole


def title(settings: TrainSettings) -> str:
    """What is trained, in a few words."""
    return f"{settings.model} on {settings.data}, {settings.optimizer}, learning rate {settings.lr:g}"


def progress(settings: TrainSettings, now: Snapshot | None, elapsed: float) -> Progress:
    """How far the run is, `elapsed` seconds after it began."""
    from nandetect.train.settings import STEPS

    if now is None:
        return Progress(done="compiling the first step")
    done = now.step + 1
    epoch = f"epoch {now.epoch:,.1f}"
    if settings.time_limit is not None:
        share = min(elapsed / settings.time_limit, 1.0)
        return Progress(done=f"step {done:,}, {epoch}", share=share, left=max(settings.time_limit - elapsed, 0.0))
    steps = settings.steps or STEPS
    if settings.epochs is not None:
        steps = max(math.ceil(settings.epochs * done / now.epoch - 1e-6), done)
        epoch += f" of {settings.epochs:,}"
    left = (steps - done) / now.steps_per_second if now.steps_per_second else None
    return Progress(done=f"step {done:,} of {steps:,}, {epoch}", share=min(done / steps, 1.0), left=left)


def line(now: Snapshot) -> str:
    """One step of a run, in one line."""
    rate = f"  {wording.steps_per_second(now.steps_per_second)}" if now.steps_per_second else ""
    return f"step {now.step}  loss {wording.short(now.loss)}  accuracy {now.accuracy:.1%}{rate}  gradient {now.gradient_norm:.3g}"
