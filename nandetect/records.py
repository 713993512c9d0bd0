"""The nouns of nandetect: small frozen records that every other module makes, passes on or renders. No JAX here."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from nandetect import wording
from nandetect.annotations import Json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import RenderableType

Phase = Literal["forward", "backward", "update"]
Value = Literal["nan", "inf", "-inf"]
# What a backward event is that no transposition made: a value computed in the forward pass, or again under remat, on which only the
# gradient depends; one whose inf the forward pass computed with and stayed finite (1 / inf is 0); or part of a derivative in forward mode.
Role = Literal["computed", "absorbed", "recomputed", "forward mode"]
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One line of source: 1-based lines, 0-based columns (`None` where Python kept none), and the code found there."""

    file: str
    line: int
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None
    function: str = ""
    code: str = ""

    def expression(self, further: Sequence[str] = ()) -> str:
        """The sub-expression that the columns mark, on one line; `further` are the lines after the first that it goes on over.

        All of `code` where Python kept no columns, or where the expression ends on a line that is not given.
        """
        if self.column is None or self.end_column is None or self.end_line != self.line + len(further):
            return self.code
        lines = [line.encode() for line in (self.code, *further)]
        lines[-1] = lines[-1][: self.end_column]
        lines[0] = lines[0][self.column :]
        return " ".join(line.decode(errors="replace").strip() for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Frame):
    """The user's innermost frame; `frames` holds all of them outside JAX, innermost first."""

    frames: tuple[Frame, ...] = ()

    @property
    def frame(self) -> Frame:
        """The line alone."""
        return Frame(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Frame)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """What went into an equation: `value` is the one at the bad element, `min` and `max` are over the finite ones.

    One without a `name` may be told by what it is, `made_by`: "the result of `sqrt` at line 12".
    """

    name: str = ""
    made_by: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    min: float | None = None
    max: float | None = None
    value: bool | int | float | complex | None = None
    index: tuple[int, ...] | None = None
    nan: int = 0
    inf: int = 0
    zero: int = 0
    subnormal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One equation of the traced program that made, carried or explains a non-finite value.

    `primitive` is the jaxpr name, or `"<input>"` for a value that arrived so, with the argument's pytree path in `argument`, or
    `"<literal>"` for one that stands in the program and is returned as it is.
    `context` is outermost first: `("scan", iteration)`, `("while", iteration)`, `("cond", branch)`, `("vmap", size)`, `("shard", index)`.
    `index` is the first bad element, `count` the number of bad ones of `size`.
    """

    primitive: str
    value: Value | Literal["finite"] = "nan"
    reason: str = ""
    phase: Phase = "forward"
    source: Source | None = None
    scope: str = ""
    context: tuple[tuple[str, int], ...] = ()
    index: tuple[int, ...] = ()
    count: int = 0
    size: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = ""
    operands: tuple[Operand, ...] = ()
    argument: str | None = None
    derivative_of: str | None = None
    role: Role | None = None
    # Where the loops of `context` stand, outermost first; None for one whose line is not known.
    loops: tuple[Frame | None, ...] = ()

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All frames of the source, innermost first."""
        return self.source.frames if self.source else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A stable way to write it, `after` in place of `before`; the two are the user's own expressions where their names are known.

    `proven`: it was put into the user's own step, which was then finite, and it is the same function where the old form is sound.
    `proof` is one sentence of what was measured. What is not proven is advice.
    """

    code: str
    name: str
    why: str
    before: str = ""
    after: str = ""
    proven: bool = False
    proof: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Another place in the step that has the first fix's hazard: `what` is said of all such places, "take `sqrt` of what can be 0".

    `at_edge`: it made something non-finite of finite numbers in this run.
    """

    code: str
    primitive: str
    what: str
    source: Frame
    at_edge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One fault: where it was born (`origin`), how it reached what the user sees (`chain`, origin first), and why (`cause`).

    `symptoms` are the pytree paths of the broken leaves; `others` are births that they would be broken by even if the origin were mended,
    the next one first; `benign` are births that no symptom descends from.
    `elsewhere` are other places that have the hazard of the first of `fixes`.
    `reproduced` is False when a replay did not show what the compiled step returned; `compiled_only` when only the compiled program
    is at fault. `called_at` is the line that called a guarded step. `unseen` names what was checked at its outputs but not looked into.
    `notes` are whole sentences for the reader.
    """

    origin: Event
    chain: tuple[Event, ...] = ()
    cause: tuple[Event, ...] = ()
    symptoms: tuple[str, ...] = ()
    others: tuple[Event, ...] = ()
    benign: tuple[Event, ...] = ()
    fixes: tuple[Fix, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()
    reproduced: bool = True
    compiled_only: bool = False
    unseen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    step: int | None = None
    called_at: Frame | None = None
    label: str = ""

    @property
    def arrived(self) -> bool:
        """Whether it was made elsewhere: what is not finite came in from outside, as the origin itself or as what brought it about."""
        return any(event.primitive == "<input>" and event.value != "finite" for event in (self.origin, *self.cause[-1:]))

    def to_dict(self) -> dict[str, Json]:
        """The report as plain lists, dicts, strings and numbers; non-finite floats are the strings nan, inf and -inf."""
        return plain(self)

    def to_json(self) -> str:
        """`to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    # The renderer is imported late, by the record that it draws: `render` stands below the records.
    def __str__(self) -> str:
        from nandetect.render import terminal

        return terminal.text(self)

    def __rich__(self) -> RenderableType:
        from nandetect.render import terminal

        return terminal.rich_report(self)

    def _repr_html_(self) -> str:
        from nandetect.render import html

        return html.report(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing worth telling: `rule` and `code` name its kind, `cause` is one phrase, `layer` a pytree path.

    `measured` and `expected` are in the unit of the rule: numbers mostly, which users compute with, so that their type is left open.
    """

    rule: str
    code: str
    severity: Severity
    message: str
    cause: str = ""
    layer: str | None = None
    step: int | None = None
    measured: Any = None
    expected: Any = None
    help: str = ""
    report: Report | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What watching a step has cost: `share` is `seconds` over the time that the program took beside it.

    `calls` were recorded and looked at in `looks`; `replays` ran a window of them again. `kept_bytes` are held for that now, `most_bytes`
    were at most, and `bound_bytes` may be. Replays are not in `seconds`, and short calls are not timed each in it but counted.
    """

    calls: int = 0
    looks: int = 0
    replays: int = 0
    seconds: float = 0.0
    share: float = 0.0
    replay_seconds: float = 0.0
    kept_bytes: int = 0
    most_bytes: int = 0
    bound_bytes: int = 0

    def __str__(self) -> str:
        kept = wording.memory(self.most_bytes)
        return f"{self.calls:,} calls watched, {self.looks:,} looks, {self.share:.1%} of the time, {kept} kept at most"


@overload
def plain(value: DataclassInstance) -> dict[str, Json]: ...
@overload
def plain(value: object) -> Json: ...
def plain(value: object) -> object:
    """A record, or anything made of records and scalars, as JSON-ready data; an array or a scalar of numpy's is left to the writer."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, complex):
        return {"real": plain(value.real), "imag": plain(value.imag)}
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
