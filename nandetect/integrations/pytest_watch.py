"""The watch behind `pytest --nandetect`: it opens when JAX is imported, and collects what each test makes. No JAX here before that."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nandetect import ownership, wording
from nandetect.errors import NonFiniteError, in_one_line, said
from nandetect.records import Report
from nandetect.run.import_hook import after_jax

if TYPE_CHECKING:
    from nandetect.run.everywhere import Everywhere

# The most calls of the test runner's machinery before the test's own function is called.
_BEFORE = 500


class NonFiniteResult(NonFiniteError):
    """What stops a test at the call; the whole report stands in its own section of the failure."""

    # The name by which pytest tells it: the shorter it is, the more of the fault stands in a line of 80 columns.
    __module__ = "nandetect"

    def __str__(self) -> str:
        return headline(self.report)


class Watching:
    """A watch that opens once JAX is imported, and the `reports` of what it found in the test that is running; None between the tests."""

    def __init__(self) -> None:
        self.everywhere: Everywhere | None = None
        self.reports: list[Report] | None = None
        self.bad = 0
        # Why nothing is watched, where the watch could not begin.
        self._failed = ""
        self._is_bad = False
        self._stops = True
        self._undone = ExitStack()

    def open(self) -> None:
        """Watch from now on, or from the import of JAX on."""
        self._undone.enter_context(after_jax(self._open))

    def close(self) -> None:
        """Undo everything."""
        self._undone.close()

    def _open(self) -> None:
        try:
            from nandetect.run import everywhere

            self.everywhere = self._undone.enter_context(everywhere.watching(self._tell, check_every=1))
        # The tests run on as they would without.
        except Exception as error:
            self._failed = said(error)

    def _tell(self, report: Report) -> None:
        if self.reports is None:
            return
        # A report's `step` counts the calls of all tests so far, which says nothing about this one.
        report = replace(report, step=None)
        self.reports.append(report)
        if self._stops and not _is_asked_by_pytest():
            raise NonFiniteResult(report)

    @contextmanager
    def test(self, namespace: dict[str, object]) -> Iterator[list[Report]]:
        """Watch one test, and collect its reports; functions that were jitted before are watched where the namespace holds them."""
        self.reports, self._is_bad = [], False
        with ExitStack() as undone:
            if self.everywhere is not None:
                self.everywhere.forget()
                if namespace:
                    undone.enter_context(self.everywhere.inside(namespace))
            try:
                yield self.reports
            finally:
                self.bad += bool(self.reports) or self._is_bad
                self.reports = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """One test that is not watched."""
        with self.everywhere.paused() if self.everywhere else nullcontext():
            yield

    @contextmanager
    def silent(self) -> Iterator[None]:
        """While open, faults are not reported here: an assertion of the test's own reports what it finds."""
        self.judge()
        reports, self.reports = self.reports, None
        try:
            yield
        except AssertionError:
            self._is_bad = True
            raise
        finally:
            if self.everywhere is not None:
                self.everywhere.forget()
            self.reports = reports

    def judge(self) -> None:
        """Look at everything not looked at yet, without stopping at what is found."""
        self._stops = False
        try:
            if self.everywhere is not None:
                self.everywhere.flush()
        finally:
            self._stops = True

    def summary(self) -> str:
        """What was found in all tests, and how much was watched."""
        if self._failed:
            return f"nothing was watched: watching could not begin ({self._failed})"
        if self.everywhere is None:
            return "JAX was not imported"
        bad = f"{wording.counted(self.bad, 'test')} made non-finite values" if self.bad else "no test made non-finite values"
        left_out = ", ".join(self.everywhere.left_out())
        watched = f"{bad}, {self.everywhere.functions.cost().calls:,} calls watched"
        return f"{watched}, not looked at: {left_out}" if left_out else watched


def _is_asked_by_pytest() -> bool:
    """Whether pytest made the call, to write out the values of a failed `assert`: an exception there would spoil its message."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None and not ownership.is_users(file := frame.f_code.co_filename):
        if "_pytest" in Path(file).parts:
            return True
        frame = frame.f_back
    return False


@contextmanager
def locals_kept(function: object) -> Iterator[None]:
    """While open, the locals of the first call of `function` outlive it: what it holds when it returns can still be looked at."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    kept: list[types.FrameType] = []
    calls, before = 0, sys.getprofile()

    def entered(frame: types.FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"
        if frame.f_code is code:
            kept.append(frame)
        if kept or calls > _BEFORE:
            sys.setprofile(before)

    if code is not None:
        sys.setprofile(entered)
    try:
        yield
    finally:
        if sys.getprofile() is entered:
            sys.setprofile(before)
        kept.clear()


def cut(error: BaseException) -> None:
    """Let the traceback end at the user's own line that made the call."""
    last, trace = None, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        last = trace if ownership.is_users(file) else last
        trace = trace.tb_next
    if last is not None:
        last.tb_next = None


def headline(report: Report) -> str:
    """What happened and where, on one line."""
    from nandetect.render import layout, words

    source = report.origin.source
    try:
        return layout.headline(report) + (f", at {words.place(source)}" if source else "")
    except Exception as error:
        return in_one_line(report, error)


def first(reports: list[Report]) -> Report:
    """The report to show: where a value was born, before where it only arrived."""
    return next((report for report in reports if not report.arrived), reports[0])
