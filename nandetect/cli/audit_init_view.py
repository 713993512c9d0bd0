"""How `nandetect audit-init` looks: the verdict in one line, a row for each kernel, then the findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nandetect.cli import findings_view, output

if TYPE_CHECKING:
    from nandetect.audit import Audit, Layer

# The most rows of the table; a model of more kernels has its middle left out.
_ROWS = 60
_FOLLOWS = {"kernel": "next kernel", "output": "output", "": ""}


def show(name: str, audit: Audit, to_stderr: bool = False) -> None:
    """Print the audit."""
    output.write_lines(lines(name, audit), to_stderr)


def lines(name: str, audit: Audit) -> Iterator[str]:
    """The audit as plain text."""
    yield verdict(name, audit)
    if audit.layers:
        yield ""
        yield from table(audit.layers)
    if audit.loss is not None:
        yield ""
        beside = f", and guessing costs {audit.chance:.3g}" if audit.chance is not None else ""
        yield f"loss before the first step {audit.loss:.4g}{beside}"
    if audit.unseen:
        yield f"not looked at: {audit.unseen}"
    if audit.findings:
        yield ""
        yield from findings_view.lines(audit.findings)


def verdict(name: str, audit: Audit) -> str:
    """The number of findings of each severity."""
    counts = {kind: sum(finding.severity == kind for finding in audit.findings) for kind in ("error", "warning", "note")}
    found = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items() if count]
    kernels = f"{len(audit.layers)} kernel{'' if len(audit.layers) == 1 else 's'}, {audit.parameters:,} parameters"
    return f"{name}: {kernels}: {', '.join(found) or 'nothing wrong'}"


def table(layers: Sequence[Layer]) -> Iterator[str]:
    """A row for each layer, and the columns that are filled in at least one of them."""
    head = ["kernel", "shape", "fan-in", "then", "std", "wants", "scheme", "signal", "gradient", "idle"]
    rows = [_row(layer) for layer in layers]
    if len(rows) > _ROWS:
        half = _ROWS // 2
        rows = [*rows[:half], [f"... {len(rows) - 2 * half} more, which --json has", *[""] * (len(head) - 1)], *rows[-half:]]
    filled = [column for column in range(len(head)) if any(row[column] for row in rows)]
    widths = [max(len(head[column]), *(len(row[column]) for row in rows if not row[0].startswith("..."))) for column in filled]
    for row in (head, *rows):
        yield "  ".join(f"{row[column]:<{width}}" for column, width in zip(filled, widths, strict=True)).rstrip()


def _row(layer: Layer) -> list[str]:
    return [
        layer.path,
        f"[{', '.join(map(str, layer.shape))}]",
        str(layer.fan_in),
        _FOLLOWS.get(layer.follows, layer.follows),
        f"{layer.std:.3g}",
        f"{layer.wanted:.3g}" if layer.wanted is not None else "",
        "off" if layer.is_off else layer.scheme,
        _moment(layer.forward),
        _moment(layer.backward),
        f"{layer.idle:.0%}" if not math.isnan(layer.idle) else "",
    ]


def _moment(x: float) -> str:
    """The root of a second moment."""
    return "" if math.isnan(x) else f"{math.sqrt(x):.2g}" if x >= 0 and math.isfinite(x) else f"{x}"


def body(name: str, audit: Audit) -> dict[str, object]:
    """The command's own part of the document."""
    return {"target": name, **output.body(audit)}
