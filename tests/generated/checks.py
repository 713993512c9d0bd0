"""One program under `nd.locate`, `nd.guard` and `nandetect run`, against the mark in its source and the second opinion."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import random
import signal
import sys
import time
import traceback
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from generated.faults import MARK
from generated.op_by_op import Place, births, is_bad
from generated.programs import Program

import nandetect as nd
from nandetect import fixing
from nandetect.records import Report
from nandetect.run import script
from nandetect.run.everywhere import watching

# Of the work of this process, for one check.
SECONDS = 60
# One program in so many is run with all that the command does around it, one gets its fixes tried; and one in so many is looked at
# operation by operation, as is each that fails.
AS_COMMAND, WITH_FIXES, SECOND_OPINION = 20, 20, 5


@dataclass(frozen=True)
class Truth:
    """What the mark says: the lines of the marked statement, and each primitive with the phase that it is right in."""

    lines: range
    pairs: frozenset[tuple[str, str]]

    @property
    def primitives(self) -> set[str]:
        """The primitives that are right."""
        return {primitive for primitive, _ in self.pairs}


@dataclass(frozen=True)
class Failure:
    """What went wrong in which check: `kind` is two words, `said` what nandetect said or raised."""

    check: str
    kind: str
    said: str


class Hang(Exception):
    """A check took longer than any should."""


def truth_of(source: str) -> Truth:
    """Read the mark."""
    (at,) = [number for number, line in enumerate(source.splitlines(), 1) if MARK in line]
    primitives, phases, derivative = (part.split() for part in source.splitlines()[at - 1].split(f"{MARK}: ")[1].split("|"))
    statements = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt) and node.lineno <= at <= (node.end_lineno or 0)
    ]
    innermost = max(statements, key=lambda node: node.lineno)
    pairs = {(primitive, phase) for primitive in primitives for phase in phases}
    if {"backward", "derived"} & set(phases):
        pairs |= {(primitive, phase) for primitive in derivative for phase in (*phases, "backward")}
    return Truth(range(innermost.lineno, (innermost.end_lineno or at) + 1), frozenset(pairs))


def check(source: str, path: Path, seed: int, whole: bool = False, only: str = "") -> Checks:
    """Check one program. With `whole`, both runs of the program are checked; with `only`, nothing but this check is made."""
    path.write_text(source)
    checks, rng = Checks(source, path), random.Random(seed)
    fixing.PRESCRIBES = seed % WITH_FIXES == 0
    at, faulty, at_in_run = rng.randrange(5), rng.random() < 0.5, rng.randrange(5)
    with _calm():
        checks.attempt("program", checks.understand)
        if checks.failures:
            return checks
        if only in ("", "locate"):
            checks.attempt("locate", checks.locate)
        if only in ("", "guard"):
            checks.attempt("guard", lambda: checks.guard(at))
        if only in ("", "run"):
            for bad in (True, False) if whole else (faulty,):
                checks.attempt("run", lambda bad=bad: checks.run(at_in_run if bad else None, seed % AS_COMMAND == 0))
        if only in ("", "mark") and (seed % SECOND_OPINION == 0 or checks.failures):
            checks.attempt("mark", checks.doubt)
    return checks


class Checks:
    """The checks of one program, and what they found."""

    def __init__(self, source: str, path: Path):
        self.path, self.truth, self.source = path, truth_of(source), source.splitlines()
        self.failures: list[Failure] = []
        self.made: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.module: Any = None
        self.broken = False
        self.known: dict[int, bool] = {}
        self.now = ""

    def attempt(self, name: str, check) -> None:
        """Make one check; what it raises is a failure of it, too."""
        self.now, began = name, time.process_time()
        try:
            with _limited():
                check()
        except Hang:
            self.fail("hang", "".join(traceback.format_stack(limit=3)))
        except Exception:
            self.fail("crash", traceback.format_exc())
        self.made[name] = self.made.get(name, 0) + 1
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.process_time() - began, 3)

    def fail(self, kind: str, said: str) -> None:
        """Note a failure of the check that is being made."""
        self.failures.append(Failure(self.now, kind, said))

    def understand(self) -> None:
        """Load the program and see by itself whether it is at fault."""
        self.module = module = load(self.path)
        if _broken(module.step(module.initial(), module.trigger(False))):
            self.fail("unsound program", "the sound twin is not finite")
        self.broken = self._breaks(0)

    def _breaks(self, bad: int) -> bool:
        """Whether call number `bad` of a loop, at fault, gives what is not finite: a state that has become small may pass the fault by."""
        if bad not in self.known:
            state, step, trigger = self.module.initial(), self.module.step, self.module.trigger
            for _ in range(bad):
                state, _ = step(state, trigger(False))
            self.known[bad] = _broken(step(state, trigger(True)))
        return self.known[bad]

    def doubt(self) -> None:
        """See by the second opinion whether the program is at fault where its mark says so."""
        module = self.module
        places = births(module.step, str(self.path), module.initial(), module.trigger(True)) if self.broken else None
        if places and not any(self._is_true(place) for place in places):
            self.fail("untrue mark", f"operation by operation: {sorted(places)}")

    def _is_true(self, place: Place) -> bool:
        # JAX files what a rule of custom_jvp computes inside of a loop under the line that calls the function.
        filed = any(name in self.source[line - 1] for line in place.lines for name in (" = ruled", " = own"))
        return (
            place.primitive == "shard_map"
            or filed
            or (place.primitive in self.truth.primitives and any(line in self.truth.lines for line in place.lines))
        )

    def locate(self) -> None:
        """Both twins by `nd.locate`."""
        module = self.module
        self.judge(nd.locate(module.step, module.initial(), module.trigger(False)), False)
        self.judge(nd.locate(module.step, module.initial(), module.trigger(True)), self.broken)

    def guard(self, bad: int) -> None:
        """A loop of five calls whose call number `bad` is at fault, and one without."""
        for at in (None, bad):
            report, state, step = None, self.module.initial(), nd.guard(self.module.step)
            metric: Any = 0.0
            try:
                for number in range(5):
                    state, metric = step(state, self.module.trigger(number == at))
                step.flush()
                float(metric)
            except nd.NonFiniteError as error:
                report = error.report
            self.judge(report, at is not None and self._breaks(at))
            if report and at is not None and report.step != at:
                self.fail("wrong step", f"step {report.step}, not {at}\n{report}")

    def run(self, bad: int | None, as_command: bool) -> None:
        """The program watched from start to end, with all that the command does around that or without."""
        argv = [str(self.path), str(-1 if bad is None else bad)]
        told = run_program(self.path, argv) if as_command else watch_program(self.path, argv)
        self.judge(told[0] if told else None, bad is not None and self._breaks(bad))

    def judge(self, report: Report | None, broken: bool) -> None:
        """Compare what was said with the mark."""
        if report is None:
            return self.fail("missed", "nothing was said") if broken else None
        said, origin, truth = str(report), report.origin, self.truth
        report.to_json()
        if not broken:
            return self.fail("false alarm", said)
        here = origin.source is not None and origin.source.file == str(self.path) and origin.source.line in truth.lines
        if not here:
            self.fail("wrong line", said)
        elif origin.primitive not in truth.primitives:
            self.fail("wrong primitive", said)
        elif (origin.primitive, origin.phase) not in truth.pairs:
            self.fail("wrong phase", said)
        if "{" in origin.reason:
            self.fail("odd words", said)
        return None


def load(path: Path) -> types.ModuleType:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def as_before(argv: list[str]) -> Iterator[None]:
    """What a program finds and changes in this process, which is as it was afterwards."""
    kept = sys.argv[:], sys.path[:], sys.modules["__main__"]
    sys.argv[:] = argv
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.argv[:], sys.path[:], sys.modules["__main__"] = kept


def run_program(path: Path, argv: list[str]) -> list[Report]:
    """What `nandetect run` tells of a program. It does more around a small program than that takes."""
    told: list[Report] = []
    with as_before(argv):
        ran = script.run(script.load(str(path), False), argv, told.append)
    assert ran.found or ran.code == 0
    return told


def watch_program(path: Path, argv: list[str]) -> list[Report]:
    """What is told of a program that is watched as the command does it."""
    told: list[Report] = []

    def tell(report: Report) -> None:
        told.append(report)
        raise nd.NonFiniteError(report)

    main = types.ModuleType("__main__")
    with as_before(argv), contextlib.suppress(nd.NonFiniteError), watching(tell) as watched:
        sys.modules["__main__"] = main
        exec(compile(path.read_text(), str(path), "exec"), vars(main))
        watched.flush()
    return told


def _broken(result: Any) -> bool:
    """Whether a step's result shows a fault: anything not finite but the best value so far, which starts at inf."""
    state, metric = result
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if name != "best"}
    return any(map(is_bad, jax.tree.leaves((state, metric))))


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang

    # In seconds of this process's own work: a busy machine is no hang. What waits idly is ended by `work`.
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def failures_of(program: Program, folder: Path, whole: bool = False) -> Checks:
    """`check` of a program in a folder."""
    return check(program.source, folder / f"seed_{program.seed}.py", program.seed, whole)
