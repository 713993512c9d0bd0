"""What the README quotes is what is there; what the pages for contributors name, too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.core
import typer.main

from nandetect.cli import commands

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text() if README.is_file() else ""
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
COMMANDS = [shlex.split(command, comments=True) for line in LINES for command in line.split("&&")]
OURS = [arguments for name, *arguments in filter(None, COMMANDS) if name == "nandetect"]

pytestmark = pytest.mark.skipif(not TEXT, reason="no README.md beside the tests: they were taken out of the checkout")


def test_the_quoted_lines_of_the_model_stand_in_it_at_that_number():
    model = (ROOT / "models" / "mlp.py").read_text().splitlines()
    quoted = re.findall(r"^(\d+) \| (.*)$", TEXT, re.M)
    assert quoted
    assert {(number, model[int(number) - 1]) for number, _ in quoted} == set(quoted)


@pytest.mark.parametrize("command", OURS, ids=" ".join)
def test_every_command_in_the_readme_can_be_understood(command):
    name, *arguments = command
    group = typer.main.get_command(commands.app)
    assert isinstance(group, typer.core.TyperGroup)
    known = group.commands[name]
    known.make_context(name, arguments)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_stands_in_the_readme(name):
    assert f"nandetect {name}" in TEXT


def test_every_file_that_the_readme_links_to_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert linked
    assert [file for file in linked if not (ROOT / file).exists()] == []


PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "nandetect").rglob("README.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_for_contributors_names_exists(page):
    # Named from the page's own room, from nandetect/ or from the top.
    named = set(re.findall(r"`([\w./-]+(?:\.py|\.json|\.md|\.toml|/))[ :`]", page.read_text()))
    assert named
    assert [name for name in named if not any((start / name).exists() for start in (page.parent, ROOT / "nandetect", ROOT))] == []
