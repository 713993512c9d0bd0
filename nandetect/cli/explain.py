"""`nandetect explain`: the page behind a code."""

from __future__ import annotations

from typing import Annotated

import typer

from nandetect.cli import options, output


def command(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="ND201, or a name: log-of-softmax; all where left out.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page of documentation.")] = False,
    json: options.Json = None,
) -> None:
    """Explain a code: what breaks, why, the stable way to write it, and what both give.

    Both ways are run for it. Without a code, all codes are listed.
    """
    document = output.JsonOutput(json)

    from nandetect.cli import explain_view as view
    from nandetect.hazards.explaining import explained
    from nandetect.records import plain

    if code is None:
        lines, body = list(view.listed()), {"codes": [{"code": one, "name": name} for one, name in view.codes()]}
    elif (rule := view.rule(code)) is not None:
        lines, body = [view.of_rule(*rule)], {"code": rule[0], "name": rule[1]}
    else:
        page = explained(view.hazard(code))
        lines = list(view.as_markdown(page) if markdown else view.told(page))
        body = plain(page)
    if not document.takes_stdout:
        output.write_lines(lines)
    document.write("explain", (), lambda: body)
