"""Imports flow one way. The list below is the order in which nandetect is read; each row may use only the rows above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nandetect

# A new module gets a place here: after everything that it imports, before everything that imports it.
# A name that ends in / is a package, whose own modules may use one another.
LAYERS = """
records
errors listing findings memory after_jax history audience
overview
compat moves families reasons exact target arguments
provenance phase measure model_file
program
flow wanted derivative tape window
walk
names compiled truth/
loops shards
trail
event births explain doubt
cause hazards/
account
finite
recorder
replay judge
rewind skips
speed/
watch
guarded health
eager doctor data/ asserts
unjitted stand_ins
everywhere
script
logbook/
monitor/ audit/
optax_health
train/
race/
subject audit_target
compare/
inspect_program
render/
per_test notebook
pytest_plugin cli/
__init__ __main__
"""
ROWS = {name.rstrip("/"): row for row, names in enumerate(LAYERS.split("\n")) for name in names.split()}

# The nouns, and whatever draws them, are readable on a machine without JAX.
WITHOUT_JAX = ("records", "errors", "listing", "findings", "after_jax", "history", "audience", "target", "logbook", "overview", "render")
DRAWN = ("records", "errors", "listing", "render")

# A record draws itself (`str(report)`, a notebook's cell) through the one renderer, which stands far below it.
UPWARDS = {("records", "render")}

PACKAGE = Path(nandetect.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "_models" not in path.parts)
MODELS = PACKAGE / "_models" if (PACKAGE / "_models").is_dir() else PACKAGE.parent / "models"


def unit(module: Path) -> str:
    """The name by which the list knows a module: its package's, where that is listed."""
    return module.parts[0] if len(module.parts) > 1 else module.stem


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything under a node but what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from running_nodes(child)


def imported(file: Path, *, late: bool = True) -> set[str]:
    """The dotted names that a file imports when it runs; without `late`, only those imported before any function is called."""
    tree = ast.parse(file.read_text())
    nodes = set(running_nodes(tree))
    if not late:
        functions = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        nodes -= {inner for function in functions for inner in ast.walk(function)}
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_units(file: Path) -> set[str]:
    """What a file imports of nandetect, as the list names it."""
    dotted = (name.split(".") for name in imported(file) if name.startswith("nandetect."))
    return {parts[1] for parts in dotted if parts[1] != "__version__"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_place_in_the_list(module):
    assert unit(module) in ROWS, f"nandetect/{module} is new: give it a place in LAYERS, in tests/test_layers.py"


def test_every_place_in_the_list_has_a_module():
    assert set(ROWS) == {unit(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_what_stands_above_it(module):
    here = unit(module)
    below = {
        there
        for there in imported_units(PACKAGE / module)
        if there != here and (here, there) not in UPWARDS and ROWS.get(there, 0) >= ROWS.get(here, 0)
    }
    assert not below, f"nandetect/{module} imports {sorted(below)}, which LAYERS does not put above it"


@pytest.mark.parametrize("module", [module for module in MODULES if unit(module) in WITHOUT_JAX], ids=str)
def test_the_nouns_and_their_rendering_do_not_import_jax(module):
    assert not {name for name in imported(PACKAGE / module) if name.split(".")[0] in ("jax", "jaxlib")}


@pytest.mark.parametrize("module", [module for module in MODULES if unit(module) == "render"], ids=str)
def test_a_renderer_knows_only_the_records(module):
    assert imported_units(PACKAGE / module) <= set(DRAWN)


def test_only_compat_says_jax_src():
    private = "jax" + "._src"
    assert [module.name for module in MODULES if private in (PACKAGE / module).read_text()] == ["compat.py"]


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.py")), ids=lambda file: file.name)
def test_a_model_is_plain_jax_that_can_be_copied(file):
    assert {name.split(".")[0] for name in imported(file)} <= {"jax", "numpy", "math"}


def test_the_commands_import_jax_only_when_one_runs():
    early = {name.split(".")[0] for module in MODULES if unit(module) == "cli" for name in imported(PACKAGE / module, late=False)}
    assert early.isdisjoint({"jax", "jaxlib", "numpy"})
