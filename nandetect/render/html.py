"""A report in a notebook: the terminal's page in one `<pre>`, with colours that read on light and on dark."""

from __future__ import annotations

import html

from nandetect.records import Report
from nandetect.render import layout

_WIDTH = 100
# No background, the notebook's own text colour, and middle tones with enough contrast on white and on black.
_PAGE = (
    "font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.9em; line-height: 1.35; white-space: pre; "
    "overflow-x: auto; color: inherit; background: transparent; border-left: 3px solid #e5534b; padding: 0.4em 0.8em; margin: 0.5em 0"
)
_STYLES = {
    "error": "color: #e5534b; font-weight: bold",
    "headline": "font-weight: bold",
    "gutter": "color: #4a86d8",
    "caret": "color: #e5534b; font-weight: bold",
    "help": "color: #2e9a4b; font-weight: bold",
    "before": "color: #e5534b",
    "after": "color: #2e9a4b",
    "dim": "opacity: 0.7",
}


def report(report: Report) -> str:
    """A self-contained snippet: inline styles only, everything escaped."""
    lines = ("".join(_span(span.text, span.style) for span in line).rstrip() for line in layout.page(report, _WIDTH))
    return f'<pre class="nandetect" style="{_PAGE}">{chr(10).join(lines)}</pre>'


def _span(text: str, style: str) -> str:
    escaped = html.escape(text)
    return f'<span style="{_STYLES[style]}">{escaped}</span>' if style in _STYLES and text.strip() else escaped
