"""What a person names on the command line, as an object: `FILE.py:function` or `package.module:function`. No JAX here."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from nandetect import ownership
from nandetect.errors import UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """A function, the module that it is in, and the name that the person gave it by."""

    name: str
    module: ModuleType
    function: Callable[..., object]


def load(text: str) -> Target:
    """The function that `text` names, and its module."""
    where, _, name = text.rpartition(":")
    if not where or not name:
        raise UsageError(f"{text} names no function: write FILE.py:function or package.module:function")
    module = from_file(where) if is_file(where) else from_name(where)
    if module.__file__:
        ownership.work_in(os.path.dirname(os.path.abspath(module.__file__)))
    return Target(text, module, function_in(module, name, where))


def is_file(where: str) -> bool:
    """Whether `where` can only be meant as a file."""
    return where.endswith(".py") or (":" not in where and os.sep in where) or Path(where).is_file()


def from_file(where: str) -> ModuleType:
    """The module that a Python file is, imported the way `python FILE` finds its neighbours."""
    path = Path(where)
    if not path.is_file():
        raise UsageError(f"there is no file {where}" if not path.exists() else f"{where} is not a file")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{where} is not a Python file: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    with _importing(where, str(path.parent)):
        spec.loader.exec_module(module)
    return module


def from_name(where: str) -> ModuleType:
    """A module by its dotted name, also from the working directory."""
    with _importing(where, os.getcwd()):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            missing = error.name or where
            if not f"{where}.".startswith(f"{missing}."):
                raise
            raise UsageError(f"there is no module {missing}: is it installed, or did you mean a file ({where}.py)?") from error


@contextmanager
def _importing(where: str, directory: str) -> Iterator[None]:
    """Import the user's module inside: whatever it raises becomes one line. Its neighbours in `directory` can be imported too."""
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{where} could not be imported: {type(error).__name__}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """The message of an error and the line that raised it. A syntax error has no frame of its own: it carries its line."""
    if isinstance(error, SyntaxError):
        return f"{error.msg}, at {error.filename}:{error.lineno}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{' '.join(str(error).split())}, at {last.filename}:{last.lineno}"


def function_in(module: ModuleType, name: str, where: str) -> Callable[..., object]:
    """What has that name in a module: a function, a `Class.method`, anything callable."""
    try:
        function = functools.reduce(getattr, name.split("."), module)
    except AttributeError as error:
        defined = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        close = difflib.get_close_matches(name, defined, n=3) or sorted(defined)[:6]
        raise UsageError(f"{where} has no `{name}`" + (f"; it has {', '.join(close)}" if close else "")) from error
    if not callable(function):
        raise UsageError(f"`{name}` in {where} is not a function but of type {type(function).__name__}")
    return function
