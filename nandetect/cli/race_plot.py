"""The curves of a race, drawn by matplotlib; and one HTML file with them and the table."""

from __future__ import annotations

import html
import io
import re
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from nandetect.cli import race_words as words
from nandetect.errors import UsageError
from nandetect.render import html as reports

if TYPE_CHECKING:
    from nandetect.race.result import OverSeeds, RaceResult

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>nandetect race</title>
<style>
body {{ font-family: system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.4 }}
h1 {{ font-size: 1.2rem }} svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse }} th, td {{ text-align: left; padding: 0.2rem 1.2rem 0.2rem 0; border-bottom: 1px solid #ddd }}
p {{ color: #555 }}
</style></head><body>
<h1>{verdict}</h1>
{plot}
{table}
{notes}
{reports}
</body></html>
"""


def require() -> None:
    """Raise `UsageError` where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise UsageError("--html and --png need matplotlib: pip install 'nandetect[plot]'")


def plot(result: RaceResult, kind: Literal["png", "svg"]) -> bytes:
    """Accuracy against time, on the training samples and held out: the median of the seeds, and a band from the lowest to the highest."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, part, title in ((left, "training", "training samples"), (right, "held_out", "held-out samples")):
        for standing in result.standings:
            curve = standing.curve
            seen = [(second, value) for second, value in zip(curve.seconds, getattr(curve, part), strict=True) if value is not None]
            times: list[float] = [second for second, _ in seen]
            spreads: list[OverSeeds] = [value for _, value in seen]
            (line,) = axes.plot(times, [value.median for value in spreads], drawstyle="steps-post", label=standing.name)
            low, high = [value.min for value in spreads], [value.max for value in spreads]
            axes.fill_between(times, low, high, step="post", alpha=0.2, color=line.get_color())
        axes.set(xscale="log", ylim=(-0.02, 1.02), xlabel="seconds of the entrant's own time, compiling left out", title=title)
        axes.grid(alpha=0.3)
    left.set_ylabel("accuracy")
    right.legend(loc="lower right")
    figure.suptitle("\n".join(textwrap.wrap(words.verdict(result), 140)), fontsize=10, parse_math=False)
    picture = io.BytesIO()
    # Without the date and with a fixed salt, the same race gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "nandetect"}):
        figure.savefig(picture, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return picture.getvalue()


def page(result: RaceResult) -> str:
    """One self-contained file: the verdict, the plot as inline SVG, the table, and a report for each fault."""
    drawn = plot(result, "svg").decode()
    heads = "".join(f"<th>{html.escape(standing.name)}</th>" for standing in result.standings)
    body = "\n".join(
        f"<tr><td>{html.escape(name.strip())}</td>{''.join(f'<td>{html.escape(text)}</td>' for text in texts)}</tr>"
        for name, texts in words.rows(result)
    )
    notes = [words.conditions(result), *words.judgement(result)]
    faults = [
        f"<p>{html.escape(finding.message)}</p>\n{reports.report(finding.report) if finding.report else ''}" for finding in result.findings
    ]
    return _PAGE.format(
        verdict=html.escape(words.verdict(result)),
        # The lines before the element belong to an SVG file of its own.
        plot=re.sub(r"^.*?(?=<svg)", "", drawn, flags=re.DOTALL),
        table=f"<table>\n<tr><th></th>{heads}</tr>\n{body}\n</table>",
        notes="\n".join(f"<p>{html.escape(line)}</p>" for line in notes),
        reports="\n".join(faults),
    )
