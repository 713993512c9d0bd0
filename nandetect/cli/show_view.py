"""How a recorded run looks: its settings, its summary, its curves, and the findings."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.cli import findings_view
from nandetect.cli.frame import pictures

if TYPE_CHECKING:
    import numpy as np
    from rich.text import Text

    from nandetect.logbook import Entry, RecordedRun

_WIDTH, _TALL, _LAYERS, _PAIRS = 100, 9, 24, 2
# The most points of a series in a document; --csv and --parquet have all that are kept.
_POINTS = 2000


def show(run: RecordedRun) -> None:
    """Print the run."""
    from rich.console import Console

    from nandetect.monitor import explosion
    from nandetect.render import explosion as explosion_report
    from nandetect.render import terminal
    from nandetect.render.curves import can_draw_braille

    console = Console()
    for line in lines(run, terminal.width(console), can_draw_braille(console.encoding)):
        terminal.write(line, console)
    if run.findings:
        console.file.write("\n")
    exploded = explosion.explosion(run.history, run.findings) if explosion.exploded(run.findings) else None
    if exploded:
        explosion_report.show(exploded, console)
    findings_view.show((finding for finding in run.findings if exploded is None or finding != exploded.cause), console)
    console.file.flush()


def lines(run: RecordedRun, width: int = _WIDTH, braille: bool = True) -> list[Text]:
    """All lines but those of the findings."""
    from rich.text import Text

    head = [Text(headline(run.entry), style="bold"), *(Text(line) for line in _settings(run.about, width))]
    head += [Text(line) for line in run.about.get("summary") or _latest(run)]
    return [*head, *pictures(run.history, width, _TALL, _LAYERS, _PAIRS, braille)]


def headline(entry: Entry) -> str:
    """A run's name, and how it goes on or ended."""
    if entry.state == "running":
        return f"{entry.name}: running, step {max(entry.steps - 1, 0):,}"
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.began))
    after = f" after {wording.run_time(entry.ended - entry.began)}" if entry.ended else ""
    state = "not known whether it still runs" if entry.state == "unknown" else entry.state
    return f"{entry.name}: {state}{after}, {wording.counted(entry.steps, 'step')}, begun {began}"


def _settings(about: Mapping[str, object], width: int) -> list[str]:
    """The settings that were given, those that were left open apart."""
    from nandetect.render.page import wrap

    settings = about.get("settings")
    given = {**about, **(settings if isinstance(settings, dict) else {})}
    apart = ("command", "settings", "summary", "result")
    shown = {name: value for name, value in given.items() if name not in apart and value not in (None, False)}
    parts = [f"{name.replace('_', ' ')} {_said(value)}" for name, value in shown.items()]
    return list(wrap(", ".join(parts), width)) if parts else []


def _said(value: object) -> str:
    """The value of a setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "x".join(map(str, value)) or "none" if isinstance(value, list) else f"{value}"


def _latest(run: RecordedRun) -> list[str]:
    """The last point, for a run that wrote no summary."""
    history = run.history
    if not len(history):
        return ["no point of it has been written yet"]
    latest = {name: float(history.series[name][-1]) for name in ("loss", "accuracy", "gradient") if name in history.series}
    # A NaN stands for what was not measured.
    parts = [f"{name} {wording.short(value, 3)}" for name, value in latest.items() if not math.isnan(value)]
    return [f"step {int(history.steps[-1]):,}: {', '.join(parts)}"] if parts else []


def listed(kept: Sequence[Entry], directory: Path) -> list[str]:
    """The kept runs as a table, the newest first."""
    if not kept:
        return [f"no run is kept in {directory} yet; `nandetect train` keeps one"]
    rows = [("run", "state", "steps", "size", "errors")]
    rows += [(entry.name, entry.state, f"{entry.steps:,}", wording.file_size(entry.size), str(entry.errors or "")) for entry in kept]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        f"{name:<{widths[0]}}  {state:<{widths[1]}}  {steps:>{widths[2]}}  {size:>{widths[3]}}  {errors}".rstrip()
        for name, state, steps, size, errors in rows
    ]
    return [*table, "", f"kept in {directory}; `nandetect show RUN` prints one, `last` is the newest"]


def list_body(kept: Sequence[Entry]) -> dict[str, object]:
    """The command's own part of the document, for the list of runs."""
    return {"runs": [_entry(entry) for entry in kept]}


def body(run: RecordedRun) -> dict[str, object]:
    """The command's own part of the document, for one run."""
    from nandetect.logbook import thin

    thinned = thin(run.history, _POINTS)
    return {
        **_entry(run.entry),
        "points": len(run.history),
        "leaves": list(run.history.leaves),
        "series": {"step": thinned.steps.tolist(), **{name: _numbers(array) for name, array in thinned.series.items()}},
    }


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "path": str(entry.path),
        "state": entry.state,
        "began": entry.began,
        "ended": entry.ended,
        "steps": entry.steps,
        "errors": entry.errors,
        "bytes": entry.size,
        "about": dict(entry.about),
    }


def _numbers(array: np.ndarray) -> list[float]:
    return array.astype(float).tolist()
