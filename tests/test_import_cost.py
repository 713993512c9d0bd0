"""`import nandetect` and the command line's help cost next to nothing: what is heavy is imported when it is needed."""

from __future__ import annotations

import json
import subprocess
import sys


def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has imported once `code` has run."""
    quiet = f"with contextlib.redirect_stdout(io.StringIO()):\n    {code}"
    script = f"import contextlib, io, json, sys\n{quiet}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout)}


def help_of(*command: str) -> str:
    return f"from nandetect.cli.commands import app; app({[*command, '--help']!r}, standalone_mode=False)"


def test_import_nandetect_does_not_import_jax():
    assert modules_after("import nandetect").isdisjoint({"jax", "jaxlib", "numpy", "rich", "typer"})


def test_a_name_of_nandetect_is_found_without_having_been_imported():
    assert "jax" in modules_after("import nandetect; nandetect.locate")


def test_help_imports_neither_jax_nor_numpy():
    assert modules_after(help_of()).isdisjoint({"jax", "jaxlib", "numpy"})


def test_help_of_inspect_imports_neither_jax_nor_numpy():
    assert modules_after(help_of("inspect")).isdisjoint({"jax", "jaxlib", "numpy"})


def test_records_and_errors_do_without_jax():
    assert modules_after("import nandetect.records, nandetect.errors, nandetect.render.terminal").isdisjoint({"jax", "jaxlib", "numpy"})


def test_a_record_is_written_without_what_only_finds_or_exports_it():
    code = "import nandetect.logbook, nandetect.logbook.events"
    assert modules_after(code).isdisjoint({"jax", "jaxlib", "platformdirs", "tensorboardX", "pyarrow"})
