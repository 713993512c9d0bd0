"""The notebook's snippet says what the terminal says, escaped and self-contained."""

from __future__ import annotations

from html.parser import HTMLParser

from nandetect.records import Event, Operand, Report, Source
from nandetect.render import html, terminal

NASTY = "y = '<b>&amp;</b><script>alert(1)</script>' / x"


class Snippet(HTMLParser):
    """The tags and attributes of a snippet, and its text as a browser would show it."""

    def __init__(self, markup: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report() -> Report:
    source = Source(file="/elsewhere/step.py", line=3, column=4, end_line=3, end_column=len(NASTY), function="<lambda>", code=NASTY)
    return Report(
        origin=Event(
            primitive="div",
            reason="division by zero",
            source=source,
            operands=(Operand(name="y", dtype="float32", value=1.0), Operand(name="x", dtype="float32", value=0.0)),
        ),
        symptoms=("['<i>']",),
        step=4,
        label="a < b",
    )


def test_a_browser_shows_the_terminals_text():
    assert Snippet(html.report(report())).text == terminal.text(report())


def test_nothing_in_the_report_becomes_markup():
    snippet = Snippet(html.report(report()))
    assert set(snippet.tags) == {"pre", "span"}
    assert snippet.open == []


def test_the_snippet_needs_nothing_from_outside_and_touches_nothing_outside():
    markup = html.report(report())
    assert {name for name, _ in Snippet(markup).attributes} <= {"style", "class"}
    assert "url(" not in markup and "http" not in markup


def test_text_keeps_the_notebooks_colour_so_that_dark_themes_read():
    markup = html.report(report())
    assert "color: inherit" in markup and "background: transparent" in markup


def test_every_colour_reads_on_white_and_on_black():
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    styles = [value or "" for name, value in Snippet(html.report(report())).attributes if name == "style"]
    colours = {word.strip(";") for style in styles for word in style.split() if word.startswith("#")}
    assert colours
    for colour in colours:
        # The contrast ratio of WCAG 2, whose bound for bold and user-interface text is 3.
        assert 1.05 / (luminance(colour) + 0.05) >= 3 and (luminance(colour) + 0.05) / 0.05 >= 3, colour


def test_a_report_shows_itself_in_a_notebook():
    assert report()._repr_html_() == html.report(report())
