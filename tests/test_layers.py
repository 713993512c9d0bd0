"""Imports flow one way. The list below is the order in which nandetect is read; each row may use only the rows above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nandetect

# A new room or root module gets a place here: after everything that it imports, before everything that imports it.
# A name that ends in / is a room, whose own modules may use one another, but not in a circle.
LAYERS = """
annotations registry wording primitives/
records
errors findings history jitted listing ownership tracebacks widths
compat effects
nonfinite
program/
interpret/
hazards/
locating/
fixing/
speed/
guarding/
health
run/
logbook/
monitor/ audit/
optax_health
data/
targets/
train/
race/ truth/
compare/
render/
integrations/ doctor
cli/
__init__ __main__
"""
ROWS = {name.rstrip("/"): row for row, names in enumerate(LAYERS.split("\n")) for name in names.split()}

# The nouns, and whatever draws them, are readable on a machine without JAX; so is what must be there before a program imports it.
WITHOUT_JAX = (
    "primitives",
    "annotations",
    "registry",
    "records",
    "errors",
    "listing",
    "ownership",
    "tracebacks",
    "wording",
    "findings",
    "history",
    "render",
    "logbook",
    "run.children",
    "run.import_hook",
    "run.unseen",
    "targets.target",
    "train.observers",
)
# A renderer draws the nouns; it asks how a number is said, how a primitive is written, and of a line of source whether it is the user's.
DRAWN = ("records", "errors", "listing", "history", "ownership", "primitives", "wording", "render")

# A record draws itself (`str(report)`, a notebook's cell) through the one renderer, which stands far below it.
UPWARDS = {("records", "render")}
MOST_AT_THE_ROOT = 20

PACKAGE = Path(nandetect.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "_models" not in path.parts)
MODELS = PACKAGE / "_models" if (PACKAGE / "_models").is_dir() else PACKAGE.parent / "models"


def unit(module: Path) -> str:
    """The name by which the list knows a module: its room's, or its own where it stands at the root."""
    return module.parts[0] if len(module.parts) > 1 else module.stem


def dotted(module: Path) -> str:
    """A module as it is imported, below `nandetect`."""
    return ".".join(module.with_suffix("").parts).removesuffix(".__init__")


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything under a node but what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from running_nodes(child)


def imported(file: Path, *, late: bool = True, types: bool = False) -> set[str]:
    """The dotted names that a file imports when it runs; without `late`, only those imported before any function is called.

    With `types`, those too that only a type checker imports.
    """
    tree = ast.parse(file.read_text())
    nodes = set(ast.walk(tree) if types else running_nodes(tree))
    if not late:
        functions = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        nodes -= {inner for function in functions for inner in ast.walk(function)}
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_units(file: Path, *, types: bool = True) -> set[str]:
    """What a file imports of nandetect, as the list names it."""
    dotted = (name.split(".") for name in imported(file, types=types) if name.startswith("nandetect."))
    return {parts[1] for parts in dotted if parts[1] != "__version__"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_place_in_the_list(module):
    assert unit(module) in ROWS, f"nandetect/{module} is new: give it a place in LAYERS, in tests/test_layers.py"


def test_the_root_stays_small():
    assert len([module for module in MODULES if len(module.parts) == 1]) <= MOST_AT_THE_ROOT


def imported_modules(module: Path) -> set[str]:
    """The modules that one imports when it runs, early or late, or when its types are checked."""
    known = set(map(dotted, MODULES))
    names = (name.removeprefix("nandetect.") for name in imported(PACKAGE / module, types=True) if name.startswith("nandetect."))
    return {name if name in known else name.rpartition(".")[0] for name in names} & known - {dotted(module)}


def test_no_modules_import_one_another_in_a_circle():
    left = {dotted(module): imported_modules(module) for module in MODULES}
    left = {here: {there for there in others if (here, there.split(".")[0]) not in UPWARDS} for here, others in left.items()}
    while ends := {here for here, others in left.items() if not others & left.keys()}:
        left = {here: others for here, others in left.items() if here not in ends}
    assert not left


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


@pytest.mark.parametrize("module", [module for module in MODULES if dotted(module).startswith(WITHOUT_JAX)], ids=str)
def test_the_nouns_and_their_rendering_do_not_import_jax(module):
    assert not {name for name in imported(PACKAGE / module) if name.split(".")[0] in ("jax", "jaxlib")}


@pytest.mark.parametrize("module", [module for module in MODULES if unit(module) == "render"], ids=str)
def test_a_renderer_knows_only_the_records(module):
    assert imported_units(PACKAGE / module, types=False) <= set(DRAWN)


def test_only_compat_and_two_more_say_jax_src():
    private = "jax" + "._src"
    assert [module.name for module in MODULES if private in (PACKAGE / module).read_text()] == ["compat.py", "effects.py", "rule_lines.py"]


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.py")), ids=lambda file: file.name)
def test_a_model_is_plain_jax_that_can_be_copied(file):
    assert {name.split(".")[0] for name in imported(file)} <= {"jax", "numpy", "math"}


def test_the_commands_import_jax_only_when_one_runs():
    early = {name.split(".")[0] for module in MODULES if unit(module) == "cli" for name in imported(PACKAGE / module, late=False)}
    assert early.isdisjoint({"jax", "jaxlib", "numpy"})
