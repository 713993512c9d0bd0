"""How a recorded run looks: what it was, what came of it, its curves, and what was found."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nandetect import wording
from nandetect.cli import findings_view
from nandetect.cli.frame import pictures

if TYPE_CHECKING:
    from rich.text import Text

    from nandetect.logbook import Entry, RecordedRun

_WIDTH, _TALL, _LAYERS, _PAIRS = 100, 9, 24, 2
# Points of a document's series; --csv and --parquet have all that are kept.
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
    findings_view.show((one for one in run.findings if exploded is None or one != exploded.cause), console)
    console.file.flush()


def lines(run: RecordedRun, width: int = _WIDTH, braille: bool = True) -> list[Text]:
    """Everything but what was found."""
    from rich.text import Text

    told = [Text(headline(run.entry), style="bold"), *(Text(line) for line in _settings(run.about, width))]
    told += [Text(line) for line in run.about.get("summary") or _stands(run)]
    return [*told, *pictures(run.history, width, _TALL, _LAYERS, _PAIRS, braille)]


def headline(entry: Entry) -> str:
    """A run's name, and how it stands or ended."""
    if entry.state == "running":
        return f"{entry.name}: running, step {max(entry.steps - 1, 0):,}"
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.began))
    after = f" after {wording.run_time(entry.ended - entry.began)}" if entry.ended else ""
    state = "not known whether it still runs" if entry.state == "unknown" else entry.state
    return f"{entry.name}: {state}{after}, {wording.counted(entry.steps, 'step')}, begun {began}"


def _settings(about: Any, width: int) -> list[str]:
    """What was asked, without what was left open."""
    from nandetect.render.page import wrap

    given = {**about, **about.get("settings", {})}
    apart = ("command", "settings", "summary", "result")
    told = [f"{name.replace('_', ' ')} {_said(value)}" for name, value in given.items() if name not in apart and value not in (None, False)]
    return list(wrap(", ".join(told), width)) if told else []


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "x".join(map(str, value)) or "none" if isinstance(value, list) else f"{value}"


def _stands(run: RecordedRun) -> list[str]:
    """The last point, of a run that wrote no summary."""
    history = run.history
    if not len(history):
        return ["no point of it has been written yet"]
    latest = {name: float(history.series[name][-1]) for name in ("loss", "accuracy", "gradient") if name in history.series}
    # NaN stands for what was not measured.
    told = [f"{name} {wording.short(value, 3)}" for name, value in latest.items() if not math.isnan(value)]
    return [f"step {int(history.steps[-1]):,}: {', '.join(told)}"] if told else []


def listed(kept: Sequence[Entry], directory: Path) -> list[str]:
    """The kept runs as a table, the newest first."""
    if not kept:
        return [f"no run is kept in {directory} yet; `nandetect train` keeps one"]
    rows = [("run", "state", "steps", "size", "errors")]
    rows += [(one.name, one.state, f"{one.steps:,}", wording.file_size(one.size), str(one.errors or "")) for one in kept]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    table = [
        f"{name:<{widths[0]}}  {state:<{widths[1]}}  {steps:>{widths[2]}}  {size:>{widths[3]}}  {errors}".rstrip()
        for name, state, steps, size, errors in rows
    ]
    return [*table, "", f"kept in {directory}; `nandetect show RUN` prints one, `last` is the newest"]


def list_body(kept: Sequence[Entry]) -> dict[str, Any]:
    """The document's own part for the list of runs."""
    return {"runs": [_entry(entry) for entry in kept]}


def body(run: RecordedRun) -> dict[str, Any]:
    """The document's own part for one run; the findings stand beside it."""
    from nandetect.logbook import thin

    seen = thin(run.history, _POINTS)
    return {
        **_entry(run.entry),
        "points": len(run.history),
        "leaves": list(run.history.leaves),
        "series": {"step": seen.steps.tolist(), **{name: _numbers(array) for name, array in seen.series.items()}},
    }


def _entry(entry: Entry) -> dict[str, Any]:
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


def _numbers(array: Any) -> list[float]:
    return array.astype(float).tolist()
