"""`nandetect doctor`: what this installation consists of, and whether it finds a planted NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nandetect.doctor import Checkup, SelfTest


def command(
    json: Annotated[str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON; `-` is standard output.")] = None,
) -> None:
    """Print versions, devices and the settings that change numbers, and find a planted NaN: exit 0 when it works, 1 when not."""
    from nandetect.render import json as documents

    if json:
        documents.check(json)
    from nandetect.doctor import examine

    checkup = examine()
    if json != "-":
        typer.echo(text(checkup))
    if json:
        documents.write(documents.document("doctor", checkup.findings, checkup.to_dict()), json)
    raise typer.Exit(1 if checkup.findings else 0)


def text(checkup: Checkup) -> str:
    """The checkup in aligned lines, the verdict last."""
    tests = [
        (f"finds {test.name}", "yes" if test.passed else f"NO: expected {test.expected}; got {test.found}") for test in checkup.self_tests
    ]
    failed = len(checkup.findings)
    sections = [
        list(checkup.versions.items()),
        [("backend", checkup.backend), ("devices", ", ".join(checkup.devices)), ("subnormals", checkup.subnormals)],
        [*((name, str(value)) for name, value in checkup.flags.items()), *checkup.variables.items()],
        tests,
    ]
    width = max(len(name) for section in sections for name, _ in section) + 2
    blocks = ["\n".join(f"{name:<{width}}{value}" for name, value in section) for section in sections]
    verdict = "healthy" if not failed else f"not healthy: {failed} of {len(tests)} planted faults not found"
    return "\n\n".join([*blocks, verdict])


def _verdict(test: SelfTest) -> str:
    return "yes" if test.passed else f"NO: expected {test.expected}; got {test.found}"
