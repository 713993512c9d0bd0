"""What nandetect raises. No JAX here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nandetect.records import Report

# Characters of what an exception says.
_SAID = 100


class UsageError(ValueError):
    """Something the user gave cannot be used; the message is one line that names it and says what to do. The CLI exits 2 on it."""


class NonFiniteError(FloatingPointError):
    """A guarded step returned a non-finite value; `report` says where it came from."""

    def __init__(self, report: Report):
        # JAX adds lines to what an error of this kind says while it goes through a derivative: it takes the first argument for text.
        super().__init__(f"`{report.origin.primitive}` made {report.origin.value}")
        self.report = report

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[Report]]:
        return type(self), (self.report,)

    def __str__(self) -> str:
        return f"\n{text(self.report)}"


class NonFiniteWarning(UserWarning):
    """The warning of a guarded step that does not raise, and of one that skips its steps again and again."""


class Unrepeatable(RuntimeError):
    """A replay came to a host callback that has an effect and whose answer the program needs."""


def text(report: Report) -> str:
    """A report as text; where it cannot be drawn, what is known in one line."""
    try:
        return str(report)
    except Exception as error:
        return in_one_line(report, error)


def in_one_line(report: Report, error: Exception) -> str:
    """What is known of a fault whose report cannot be drawn because of this error."""
    origin = report.origin
    step = "" if report.step is None else f" in step {report.step}"
    where = f" at {origin.source.file}:{origin.source.line}" if origin.source else ""
    return f"error: `{origin.primitive}` made {origin.value}{step}{where}; the report could not be drawn ({type(error).__name__})"


def said(error: BaseException) -> str:
    """The type of an exception, and the beginning of what it says, on one line."""
    try:
        text = " ".join(str(error).split())
    # The exception may be the program's, and fail at saying what it is.
    except Exception:
        text = ""
    name = type(error).__name__
    return f"{name}: {text[:_SAID]}{'…' if len(text) > _SAID else ''}" if text else name
