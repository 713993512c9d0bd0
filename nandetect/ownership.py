"""Whose code a file is: the user's own, or installed and only used. Decided here alone, by what lies on disk. No JAX.

Not the user's are

- Python's standard library and commands; code without a file that Python or a library generated (`<frozen ...>`, `<string>`); nandetect;
- what lies in a folder named `site-packages` or `dist-packages`, wherever that is (an environment, or one laid over it by a `.pth` file);
- what a distribution installed elsewhere claims: a `*.dist-info` or `*.egg-info` beside it names it (`pip install --target DIR`, a zip);
- what lies in any other zip but the running program's own: it was packed to be used, and nobody edits it there;
- an editable install of another project than the user's.

All else is the user's: a script, a notebook's cells, loose modules on `PYTHONPATH`, and their own project though it is installed editable.

A project is the user's own where they work in it: it has the same home as the running script, the working directory, pytest's root, or the
folder of the virtual environment. The home of a folder is the repository that holds it; without one, the outermost folder above it with a
`pyproject.toml` or `setup.py`. So the members of a workspace are the user's, and a library's clone in it, with its own `.git`, is not.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_SITES = ("site-packages", "dist-packages")
_COMMANDS = ("bin", "Scripts")
_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")
# What dataclasses, attrs, beartype and numpy compile for themselves.
_GENERATED = ("<frozen ", "<string>", "<attrs generated ", "<@beartype(", "<__array_function__ ")

_MACHINERY = os.path.dirname(os.path.abspath(__file__))
# An installed nandetect carries its models inside, a checkout beside the package. They are there to be copied: to the user, their own code.
_INSIDE = os.path.join(_MACHINERY, "_models")
_CARRIED = _INSIDE if os.path.isdir(_INSIDE) else os.path.join(os.path.dirname(_MACHINERY), "models")

_workplaces: list[str] = []


@functools.cache
def is_users(file: str) -> bool:
    """Whether code is the user's own, by the file name that its code object has."""
    if file.startswith("<"):
        # `python -c` calls the user's program `<string>`.
        return not file.startswith(_GENERATED) or (file == "<string>" and sys.argv[:1] == ["-c"])
    if _is_below(file, _CARRIED):
        return True
    return not (is_machinery(file) or _is_pythons(file) or installed_in(file) or _is_of_another_project(os.path.dirname(file)))


def is_machinery(file: str) -> bool:
    """Whether a file is nandetect's own, which stands around the user's step and is no part of it."""
    return _is_below(file, _MACHINERY) and not _is_below(file, _CARRIED)


@functools.cache
def installed_in(file: str) -> str | None:
    """The folder or zip that a file was installed in, whole or with its package; None for one that is in no such place."""
    if file.startswith("<"):
        return None
    folder, name = os.path.split(os.path.abspath(file))
    while name:
        if os.path.basename(folder) in _SITES or name in _claimed(folder) or _is_library_zip(folder):
            return folder
        folder, name = os.path.split(folder)
    return None


def work_in(folder: str) -> None:
    """Say that the user works in a folder, beside the working directory and the script's: pytest's root, the target of a command."""
    if folder not in _workplaces:
        _workplaces.append(folder)
        for cached in (is_users, _is_of_another_project, _users_homes):
            cached.cache_clear()


def _is_below(file: str, folder: str) -> bool:
    return file == folder or file.startswith(folder.rstrip("/\\") + os.sep)


def _is_pythons(file: str) -> bool:
    """Whether a file is Python itself, its library, or a command that some package installed."""
    folder = os.path.dirname(file)
    is_command = os.path.basename(folder) in _COMMANDS and os.path.isfile(os.path.join(folder, os.pardir, "pyvenv.cfg"))
    return is_command or file == sys.executable or any(_is_below(file, python) for python in _pythons_folders())


@functools.cache
def _pythons_folders() -> frozenset[str]:
    paths = {path for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    return frozenset(paths | {os.path.realpath(path) for path in paths})


@functools.cache
def _claimed(folder: str) -> frozenset[str]:
    """The files and packages in a folder or zip that the distributions installed there claim, by their records."""
    from importlib.metadata import distributions

    return frozenset(name for distribution in distributions(path=[folder]) for name in _names(distribution, folder))


def _names(distribution: Distribution, folder: str) -> Iterator[str]:
    """The first part of each path that a distribution installed."""
    record = _text(distribution, "RECORD")
    if record is not None:
        yield from set(re.findall(r'^"?([^/,\n]+)', record, re.MULTILINE)) - {"..", "__pycache__"}
    elif not _is_source(folder):
        for name in (_text(distribution, "top_level.txt") or "").split():
            yield from (name, f"{name}.py")


def _text(distribution: Distribution, name: str) -> str | None:
    """A file of what a distribution says of itself; None where it has none, or one that cannot be read."""
    try:
        return distribution.read_text(name)
    except (OSError, ValueError):  # it is damaged: not in UTF-8, say
        return None


def _is_source(folder: str) -> bool:
    """Whether a folder is a project's source, or the `src` in it: an `.egg-info` there tells of a build, not of an installation."""
    return any(os.path.isfile(os.path.join(near, mark)) for near in (folder, os.path.dirname(folder)) for mark in _PROJECT)


@functools.cache
def _is_library_zip(file: str) -> bool:
    return os.path.isfile(file) and os.path.realpath(file) != os.path.realpath(sys.argv[0] if sys.argv else "")


@functools.cache
def _is_of_another_project(folder: str) -> bool:
    """Whether a folder lies in an editable install of a project that the user does not work in."""
    folder = os.path.realpath(folder)
    holding = [root for root in _editable_projects(tuple(sys.path)) if _is_below(folder, root)]
    return bool(holding) and _home(max(holding, key=len)) not in _users_homes()


@functools.cache
def _editable_projects(search_path: tuple[str, ...]) -> frozenset[str]:
    """The folders of all projects that are installed editable in this environment."""
    from importlib.metadata import distributions

    return frozenset(os.path.realpath(root) for distribution in distributions(path=list(search_path)) if (root := _project(distribution)))


def _project(distribution: Distribution) -> str | None:
    """The folder of an editable install: as pip and uv note it down (PEP 610), or where `setup.py develop` put the `.egg-info`."""
    import json

    noted = _text(distribution, "direct_url.json")
    if noted is not None:
        try:
            origin = json.loads(noted)
            return url2pathname(urlsplit(origin["url"]).path) if origin.get("dir_info", {}).get("editable") else None
        except (ValueError, LookupError, AttributeError):  # it is damaged
            return None
    folder = os.path.abspath(str(distribution.locate_file("")))
    is_installed = os.path.basename(folder) in _SITES or _text(distribution, "RECORD") is not None
    return folder if not is_installed and _is_source(folder) else None


@functools.cache
def _users_homes() -> frozenset[str]:
    """The homes of the projects that the user works in."""
    folders = list(_workplaces)
    with suppress(OSError):  # the working directory may be gone
        folders.append(os.getcwd())
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and not is_machinery(script) and not _is_pythons(script) and not installed_in(script):
        folders.append(os.path.dirname(os.path.abspath(script)))
    if sys.prefix != sys.base_prefix:
        folders.append(os.path.dirname(sys.prefix))
    return frozenset(_home(os.path.realpath(folder)) for folder in folders)


def _home(folder: str) -> str:
    """The repository that holds a folder; else the outermost project that does; else the folder itself."""
    above = [folder]
    while (parent := os.path.dirname(above[-1])) != above[-1]:
        above.append(parent)
    repository = next((near for near in above if os.path.exists(os.path.join(near, ".git"))), None)
    projects = [near for near in above if any(os.path.isfile(os.path.join(near, mark)) for mark in _PROJECT)]
    return repository or (projects[-1] if projects else folder)
