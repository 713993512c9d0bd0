"""The child processes that a program starts and that may run JAX: nothing in them is looked at, so they are counted. No JAX here."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from nandetect.run.import_hook import after_module


class _Starting(threading.local):
    # A start may be made of another one: multiprocessing forks.
    now = False


@contextmanager
def counted(started: Callable[[], None]) -> Iterator[None]:
    """While open, `started` is called for each fork, each process of multiprocessing and each Python that is started by subprocess."""
    starting = _Starting()

    def replace(owner: Any, name: str, counts: Callable[..., bool]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def start(*args: object, **kwargs: object) -> object:
            if starting.now:
                return original(*args, **kwargs)
            starting.now = True
            try:
                if counts(*args, **kwargs):
                    started()
                return original(*args, **kwargs)
            finally:
                starting.now = False

        setattr(owner, name, start)
        undone.callback(setattr, owner, name, original)

    def count_processes(module: types.ModuleType) -> None:
        replace(module.BaseProcess, "start", lambda *args, **kwargs: True)

    with ExitStack() as undone:
        if hasattr(os, "fork"):
            replace(os, "fork", lambda: True)
        replace(subprocess.Popen, "__init__", _runs_python)
        undone.enter_context(after_module("multiprocessing.process", count_processes))
        yield


def _runs_python(popen: object, args: Any = (), *others: object, **options: object) -> bool:
    """Whether what is started is a Python, or a script whose first line names one."""
    try:
        words = shlex.split(args) if isinstance(args, str) else [os.fsdecode(word) for word in args]
        found = shutil.which(os.fsdecode(str(options.get("executable") or words[0])))
        if found is None:
            return False
        if os.path.realpath(found) == os.path.realpath(sys.executable):
            return True
        with open(found, "rb") as file:
            first = file.readline(200)
        return os.path.basename(os.path.realpath(found)).startswith("python") or (first[:2] == b"#!" and b"python" in first)
    # What cannot be told will fail to start, or is no file that can be read.
    except Exception:
        return False
