"""`nandetect doctor`: what this installation consists of, and whether it finds a planted NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nandetect.cli import options, output

if TYPE_CHECKING:
    from nandetect.doctor import Checkup, SelfTest


def command(
    json: options.Json = None,
) -> None:
    """Print versions, devices and the settings that change numbers, and find a planted NaN: exit 0 when it works, 1 when not."""
    document = output.JsonOutput(json)

    from nandetect.doctor import examine

    checkup = examine()
    if not document.takes_stdout:
        output.write_lines([text(checkup)])
    document.write("doctor", checkup.findings, checkup.to_dict)
    options.leave(at_fault=bool(checkup.findings))


def text(checkup: Checkup) -> str:
    """The checkup in aligned lines, the verdict last."""
    tests = [(f"finds {test.name}", _verdict(test)) for test in checkup.self_tests]
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
    """Whether a planted fault was found."""
    return "yes" if test.passed else f"NO: expected {test.expected}; got {test.found}"
