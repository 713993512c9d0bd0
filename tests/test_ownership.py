"""Whose code a file is, with libraries installed in every way that there is, and the user's own code in every place where it may lie."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import nandetect
from nandetect import ownership
from nandetect.render import words

NORM = "import jax.numpy as jnp\n\n\ndef norm(tree):\n    return jnp.sqrt(jnp.sum(tree['w'] ** 2))\n"

# What a build backend does, without one: the editable wheel holds a `.pth`, of the folder (hatch) or of a finder (setuptools).
BACKEND = """
import pathlib, zipfile
NAME, FILES = {name!r}, {files!r}

def build_editable(directory, config_settings=None, metadata_directory=None):
    wheel = f"{{NAME}}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory, wheel), "w") as archive:
        for path, text in FILES.items():
            archive.writestr(path, text)
    return wheel
"""
FINDER = """
import sys
from importlib.util import spec_from_file_location

class Finder:
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return spec_from_file_location({name!r}, {file!r}) if fullname == {name!r} else None

def install():
    sys.meta_path.append(Finder)
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "{name}"\nversion = "1.0"\n'
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

LIBRARIES = ("targeted", "overlaid", "beneath", "zipped", "linked", "hooked")
OWN = ("mine", "loose")
SCRIPT = """
import functools, importlib, json
import jax, jax.numpy as jnp, nandetect as nd

told = {}
for name in NAMES:
    library = importlib.import_module(name)
    step = jax.jit(jax.value_and_grad(lambda p, library=library: library.norm(p)))
    report = nd.locate(step, {"w": jnp.zeros(3)})
    told[name] = [report.origin.source.file, report.origin.source.code, str(report)]
print(json.dumps(told))
"""


def installed(name: str, files: dict[str, str]) -> dict[str, str]:
    """The files of an installed distribution, its record with them."""
    kept = f"{name}-1.0.dist-info"
    files = {**files, f"{kept}/METADATA": METADATA.format(name=name), f"{kept}/WHEEL": WHEEL}
    return {**files, f"{kept}/RECORD": "".join(f"{path},,\n" for path in [*files, f"{kept}/RECORD"])}


def lay(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def packed(file: Path, files: dict[str, str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return file


def project(folder: Path, name: str, hook: bool = False) -> Path:
    """A project whose package lies in `src`, ready for `pip install -e`."""
    package = folder / "src" / name / "__init__.py"
    if hook:
        finder, hooked = FINDER.format(name=name, file=str(package)), f"import __editable___{name}_finder as f; f.install()"
        editable = {f"__editable___{name}_finder.py": finder, f"__editable__.{name}.pth": hooked}
    else:
        editable = {f"_{name}.pth": str(folder / "src")}
    backend = BACKEND.format(name=name, files=installed(name, editable))
    return lay(folder, {"pyproject.toml": PROJECT.format(name=name), "backend.py": backend, f"src/{name}/__init__.py": NORM})


def pip(*command: str | Path) -> None:
    options = ("--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", *map(str, command), *options], check=True, capture_output=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, list[str]]:
    """Where `nd.locate` says that a NaN was born which a library made for the user: by the way in which the library was installed.

    One interpreter has them all. It is an environment laid over another one by a `.pth` file, as `uv run --with` makes.
    """
    pytest.importorskip("pip")
    root = tmp_path_factory.mktemp("installed")
    overlay, beneath = root / "overlay", root / "beneath" / "lib" / "site-packages"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", overlay], check=True)
    python = overlay / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(overlay)}))
    lay(beneath, installed("beneath", {"beneath.py": NORM}))
    under = [str(beneath), *(path for path in sys.path if path.endswith("site-packages"))]
    over = "".join(f"import site; site.addsitedir({path!r})\n" for path in under)
    lay(site, {**installed("overlaid", {"overlaid.py": NORM}), "_overlay.pth": over})

    wheel = packed(root / "targeted-1.0-py3-none-any.whl", installed("targeted", {"targeted/__init__.py": NORM}))
    pip("install", "--target", root / "target", wheel)
    archive = packed(root / "libraries.zip", installed("zipped", {"zipped/__init__.py": NORM}))
    mine, linked, hooked = project(root / "mine", "mine"), project(root / "linked", "linked"), project(root / "hooked", "hooked", hook=True)
    pip("--python", python, "install", "-e", mine, "-e", linked, "-e", hooked)
    loose = lay(root / "loose", {"loose.py": NORM})

    script = lay(mine, {"train.py": f"NAMES = {[*LIBRARIES, *OWN]}\n{SCRIPT}"}) / "train.py"
    tree = str(Path(nandetect.__file__).parents[1])
    path = os.pathsep.join([tree, *map(str, (root / "target", archive, loose))])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    # From another folder: what is the user's own is told by the script.
    done = subprocess.run([python, script], cwd=root, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_fault_in_an_installed_library_is_told_at_the_line_that_called_it(told, library):
    file, code, _ = told[library]
    assert (Path(file).name, code.strip()) == ("train.py", "step = jax.jit(jax.value_and_grad(lambda p, library=library: library.norm(p)))")


@pytest.mark.parametrize(
    ("library", "line"), [("targeted", "targeted/__init__.py:5"), ("overlaid", "overlaid.py:5"), ("zipped", "zipped/__init__.py:5")]
)
def test_a_line_of_an_installed_library_is_named_without_the_way_to_it(told, library, line):
    assert f"inside {line}, in norm" in told[library][2]


@pytest.mark.parametrize("own", OWN)
def test_a_fault_in_the_users_own_editable_project_or_loose_module_is_told_there(told, own):
    file, code, _ = told[own]
    assert (Path(file).parent.name, code.strip()) == (own, "return jnp.sqrt(jnp.sum(tree['w'] ** 2))")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch) -> Iterator[None]:
    """Nothing that another test was told is remembered, nor anything of these by another."""
    monkeypatch.setattr(ownership, "_workplaces", [])
    _forget()
    yield
    _forget()


def _forget() -> None:
    for value in vars(ownership).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def is_users(path: Path) -> bool:
    return ownership.is_users(str(path))


def test_libraries_and_python_are_not_the_users():
    assert ownership.is_users(__file__)
    assert not ownership.is_users(jax.__file__)
    assert not ownership.is_users(inspect.__file__)
    assert not is_users(Path(sysconfig.get_path("purelib")) / "anything" / "module.py")
    assert not is_users(Path(sysconfig.get_path("scripts")) / "pytest")


def test_nandetect_is_its_own_and_the_models_that_it_carries_are_the_users():
    assert ownership.is_machinery(ownership.__file__)
    assert not ownership.is_users(ownership.__file__)
    model = Path(ownership._CARRIED) / "mlp.py"
    assert ownership.is_users(str(model)) and not ownership.is_machinery(str(model))


@pytest.mark.parametrize("name", ["<frozen importlib._bootstrap>", "<string>", "<attrs generated init mine.Net>", "<@beartype(mine.f)>"])
def test_code_that_python_or_a_library_generates_is_not_the_users(name, monkeypatch):
    # A worker of pytest-xdist is started as `python -c`.
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert not ownership.is_users(name)
    assert ownership.installed_in(name) is None


@pytest.mark.parametrize("name", ["<stdin>", "<ipython-input-3-0a1b>", "<doctest mine.f[0]>", "/tmp/ipykernel_4242/1234567890.py"])
def test_a_cell_of_a_notebook_and_what_is_typed_at_a_prompt_are_the_users(name):
    assert ownership.is_users(name)


def test_the_program_of_python_c_is_the_users(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert ownership.is_users("<string>")


def test_a_script_beside_the_libraries_that_pip_put_in_its_folder_is_the_users(tmp_path):
    lay(tmp_path, {**installed("library", {"library/__init__.py": "", "single.py": ""}), "handler.py": "", "own/losses.py": ""})
    assert not is_users(tmp_path / "library" / "deep" / "losses.py")
    assert not is_users(tmp_path / "single.py")
    assert is_users(tmp_path / "handler.py")
    assert is_users(tmp_path / "own" / "losses.py")


def test_parts_of_a_namespace_package_belong_to_who_installed_or_wrote_them(tmp_path):
    lay(tmp_path / "target", installed("shared-library", {"shared/library/__init__.py": ""}))
    lay(tmp_path / "project", {"shared/own/__init__.py": ""})
    assert not is_users(tmp_path / "target" / "shared" / "library" / "__init__.py")
    assert is_users(tmp_path / "project" / "shared" / "own" / "__init__.py")


def test_a_package_with_an_old_style_record_is_installed(tmp_path):
    lay(tmp_path, {"library-1.0.egg-info/PKG-INFO": METADATA.format(name="library"), "library-1.0.egg-info/top_level.txt": "library\n"})
    assert not is_users(tmp_path / "library" / "__init__.py")
    assert is_users(tmp_path / "train.py")


def test_what_a_build_left_in_the_users_project_does_not_make_it_a_library(tmp_path):
    left = {
        "mine.egg-info/PKG-INFO": METADATA.format(name="mine"),
        "mine.egg-info/top_level.txt": "mine\n",
        "mine.egg-info/SOURCES.txt": "",
    }
    lay(tmp_path / "flat", {**left, "setup.py": ""})
    lay(tmp_path / "with_src", {**{f"src/{path}": text for path, text in left.items()}, "pyproject.toml": ""})
    assert is_users(tmp_path / "flat" / "mine" / "losses.py")
    assert is_users(tmp_path / "with_src" / "src" / "mine" / "losses.py")


def test_a_zip_without_records_is_a_library_and_the_program_that_runs_from_one_is_not(tmp_path, monkeypatch):
    archive = packed(tmp_path / "all.zip", {"library/__init__.py": "", "__main__.py": ""})
    assert not is_users(archive / "library" / "__init__.py")
    assert words.path(str(archive / "library" / "__init__.py")) == "library/__init__.py"
    program = packed(tmp_path / "app.pyz", {**installed("library", {"library/__init__.py": ""}), "__main__.py": "", "own.py": ""})
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert is_users(program / "own.py")
    assert not is_users(program / "library" / "__init__.py")


def editable(site: Path, name: str, root: Path) -> None:
    """What pip and uv note down of an editable install."""
    noted = json.dumps({"url": root.as_uri(), "dir_info": {"editable": True}})
    lay(site, installed(name, {f"{name}-1.0.dist-info/direct_url.json": noted}))


@pytest.fixture
def projects(tmp_path, monkeypatch) -> Path:
    """A repository with two packages and, in it, the clone of a library; a project beside. All are installed editable."""
    roots = {"core": "work/core", "app": "work/app", "clone": "work/third_party/clone", "other": "other"}
    for name, root in roots.items():
        lay(tmp_path / root, {"pyproject.toml": ""})
        editable(tmp_path / "site-packages", name, tmp_path / root)
    lay(tmp_path, {"work/.git/HEAD": "", "work/third_party/clone/.git/HEAD": ""})
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages")])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(projects: Path) -> list[str]:
    paths = {
        "core": "work/core/src/core.py",
        "app": "work/app/app.py",
        "clone": "work/third_party/clone/clone.py",
        "other": "other/other.py",
    }
    return [name for name, path in paths.items() if is_users(projects / path)]


def test_an_editable_project_is_a_library_to_who_works_elsewhere(projects):
    assert own(projects) == []


def test_all_packages_of_the_repository_worked_in_are_the_users_but_a_clone_within(projects, monkeypatch):
    monkeypatch.chdir(projects / "work" / "app")
    assert own(projects) == ["core", "app"]


def test_members_of_a_workspace_without_a_repository_are_the_users(projects, monkeypatch):
    (projects / "work" / ".git" / "HEAD").unlink()
    (projects / "work" / ".git").rmdir()
    lay(projects / "work", {"pyproject.toml": ""})
    monkeypatch.chdir(projects / "work")
    assert own(projects) == ["core", "app"]


def test_the_running_script_tells_whose_project_it_is(projects, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(projects / "other" / "bench" / "train.py"), raising=False)
    assert own(projects) == ["other"]


def test_an_installed_script_tells_nothing(projects, monkeypatch):
    runner = projects / "other" / "site-packages" / "pytest" / "__main__.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(runner), raising=False)
    assert own(projects) == []


def test_the_environment_of_a_project_tells_whose_it_is(projects, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(projects / "other" / ".venv"))
    assert own(projects) == ["other"]


def test_a_folder_that_a_command_or_pytest_works_in_is_the_users(projects):
    assert own(projects) == []
    ownership.work_in(str(projects / "work" / "third_party" / "clone" / "tests"))
    assert own(projects) == ["clone"]


def test_a_damaged_record_of_an_editable_install_is_passed_over(projects):
    noted = projects / "site-packages" / "other-1.0.dist-info" / "direct_url.json"
    for damaged in (b"{", b"[]", "größe".encode("latin-1")):
        noted.write_bytes(damaged)
        assert own(projects) == ["other"]
