"""Run a program as `python` would, with everything that it compiles watched."""

from __future__ import annotations

import gc
import importlib.util
import os
import runpy
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from nandetect import findings, tracebacks
from nandetect.errors import NonFiniteError, UsageError, in_one_line, said
from nandetect.records import Cost, Finding, Report
from nandetect.run.import_hook import after_jax

if TYPE_CHECKING:
    from nandetect.run.everywhere import Everywhere


@dataclass(slots=True)
class Ran:
    """How a program ended: its own exit code (negative for a signal that it died of), what was found in it, and what watching cost."""

    code: int = 0
    findings: list[Finding] = field(default_factory=list)
    functions: int = 0
    operations: int = 0
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0
    is_child: bool = False
    saw_jax: bool = False
    # What was not looked at, in phrases; and why nothing was, where the watch itself failed.
    unseen: list[str] = field(default_factory=list)
    unwatched: str = ""

    @property
    def found(self) -> bool:
        """Whether a fault was found."""
        return any(finding.severity == "error" for finding in self.findings)


def load(target: str, is_module: bool) -> Callable[[], None]:
    """The program as a function, found before it runs. Raises `UsageError` where there is none."""
    if is_module:
        sys.path[0] = os.getcwd()
        if not _is_there(target):
            raise UsageError(f"there is no module {target}: is it installed, or did you mean the file {target}.py without -m?")
        return lambda: _module(target)
    path = Path(target)
    if path.is_dir() and not (path / "__main__.py").is_file():
        raise UsageError(f"{target} is a directory without a __main__.py; name the script in it")
    if not path.exists():
        raise UsageError(f"there is no script {target}")
    if path.is_dir():
        return lambda: _path(target)
    file = str(path.absolute())
    try:
        code = compile(path.read_bytes(), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{target} is not a Python program: {error}") from error
    except OSError as error:
        raise UsageError(f"{target} cannot be read: {error.strerror}") from error
    return lambda: _code(file, code)


def _is_there(module: str) -> bool:
    """Whether there is a module of that name. The packages around it are imported only where that cannot be seen without."""
    parts = module.split(".")
    try:
        spec = importlib.util.find_spec(parts[0]) if all(parts) else None
        if spec is None:
            return False
        for count in range(2, len(parts) + 1):
            places = spec.submodule_search_locations
            spec = PathFinder.find_spec(".".join(parts[:count]), places) if places is not None else None
            if spec is None:
                # A package may say when it is imported where its modules are.
                return importlib.util.find_spec(module) is not None
        return True
    except ModuleNotFoundError as error:
        # Where something else is missing, which one of the packages imports, the program fails of it when it is run.
        return not f"{module}.".startswith(f"{error.name}.")
    except ValueError:
        return False
    # What a package raises, it will raise when it is run.
    except (Exception, SystemExit):
        return True


def _code(file: str, code: types.CodeType) -> None:
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=file, __builtins__=__builtins__, __spec__=None, __cached__=None)
    sys.modules["__main__"] = main
    sys.path[0] = str(Path(file).resolve().parent)
    exec(code, main.__dict__)


def _path(target: str) -> None:
    sys.path[0] = target
    runpy.run_path(target, run_name="__main__")


def _module(target: str) -> None:
    sys.modules["__main__"] = types.ModuleType("__main__")
    # What `python -m` itself calls.
    runpy._run_module_as_main(target, alter_argv=True)  # pyright: ignore[reportAttributeAccessIssue]


def run(program: Callable[[], None], argv: Sequence[str], show: Callable[[Report], None], keep_going: bool = False) -> Ran:
    """Run a program to its end. `show` is called at once with what is found; unless `keep_going`, that also ends the program."""
    ran, parent = Ran(), os.getpid()
    sys.argv[:] = argv
    told: list[Report] = []

    def tell(report: Report) -> None:
        told.append(report)
        try:
            show(report)
        except Exception as error:
            say(in_one_line(report, error))
        if not keep_going:
            raise NonFiniteError(report)

    began = time.perf_counter()
    with ExitStack() as undone:
        opened: list[Everywhere] = []

        def watch() -> None:
            # What there is by now, JAX's own objects above all, stays until the program ends. It is frozen: Python's garbage collector,
            # which watching starts a little more often, need not go through it each time; nor at the end, unless that does something.
            gc.collect(1)
            if _wants_collecting(gc.get_objects()):
                undone.callback(gc.unfreeze)
            gc.freeze()
            try:
                from nandetect.run import everywhere

                opened.append(undone.enter_context(everywhere.watching(tell)))
            # The program runs on as it would without.
            except Exception as error:
                ran.unwatched = said(error)
            gc.freeze()

        undone.enter_context(after_jax(watch))
        try:
            ran.code = _end(program, lambda error: [watched.died(error) for watched in opened])
            _join_threads()
        except KeyboardInterrupt as error:
            _print(error)
            ran.code = -signal.SIGINT
        # What ended the program is the first fault; all that came of it is not told again.
        if opened and (keep_going or not told):
            ran.code = _last_look(opened[0]) or ran.code
        ran.seconds = time.perf_counter() - began
        ran.saw_jax = bool(opened or ran.unwatched)
        for watched in opened:
            try:
                _account(ran, watched, told)
            except Exception as error:
                watched.unseen.failed(error, "count of what was watched")
            ran.unseen = watched.left_out()
        ran.findings = [*map(findings.non_finite, told), *ran.findings]
    ran.is_child = os.getpid() != parent
    return ran


def _last_look(watched: Everywhere) -> int:
    """Look at what is left at the end; the exit code where the user ends that, else 0."""
    try:
        watched.flush()
    except NonFiniteError:
        pass  # told, and there is no program left to stop
    except KeyboardInterrupt:
        watched.unseen.add("look", "that was interrupted")
        return -signal.SIGINT
    return 0


def _account(ran: Ran, watched: Everywhere, told: Sequence[Report]) -> None:
    """Enter what watching cost, how much was watched, and what was found that is no report."""
    ran.functions, ran.operations = watched.functions.called, watched.eager.log.seen
    ran.cost = _with_share(watched.functions.cost(), ran.seconds, watched.eager.seconds)
    ran.findings = [finding for finding in watched.functions.findings() if finding.report not in told]
    if not told:
        ran.findings += watched.eager.findings
    if not told and ran.code >= 0:
        ran.findings += [*watched.steered(ran.seconds), *watched.slow(ran.seconds)]


def say(line: str) -> None:
    """Write a line to standard error, if there is one."""
    with suppress(Exception):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _wants_collecting(objects: Sequence[object]) -> bool:
    """Whether any of these does something when it is collected: a file writes what is left, an object of the program's has a `__del__`."""
    # By their ids: a class may be of a kind that has no hash, and asking it for an attribute may run what the program wrote.
    kinds = {id(kind): kind for kind in map(type, objects)}
    leaving = {number for number, kind in kinds.items() if any("__del__" in vars(base) for base in kind.__mro__)}
    leaving.discard(id(types.GeneratorType))
    streams = [stream for stream in (sys.stdin, sys.stdout, sys.stderr) if stream is not None]
    ends = [getattr(stream, "buffer", None) for stream in streams]
    known = {*map(id, streams), *map(id, ends), *(id(getattr(end, "raw", None)) for end in ends)}
    return any(id(type(item)) in leaving and id(item) not in known for item in objects)


def _end(program: Callable[[], None], died: Callable[[BaseException], object]) -> int:
    """Run a program and give its exit code; what ends it with a traceback is printed as Python prints it, and `died` is told of it."""
    try:
        program()
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return (ending.code or 0) & 0xFF  # as the operating system cuts it
        sys.stderr.write(f"{ending.code}\n")
        return 1
    except NonFiniteError:
        return 1
    except KeyboardInterrupt as error:
        _print(error)
        return -signal.SIGINT
    except BaseException as error:
        _print(error)
        with suppress(NonFiniteError):
            died(error)
        return 1
    return 0


def _print(error: BaseException) -> None:
    """The traceback of the program, without the frames that stand around it and what it calls."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = tracebacks.without(cause.__traceback__, tracebacks.is_ours)
        cause = cause.__cause__ or cause.__context__
    sys.excepthook(type(error), error, error.__traceback__)


def _join_threads() -> None:
    """Wait for the program's threads, as Python does at its end."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _with_share(cost: Cost, seconds: float, looking: float) -> Cost:
    spent = cost.seconds + looking
    return replace(cost, seconds=spent, share=spent / max(seconds - spent - cost.replay_seconds, 1e-9))
