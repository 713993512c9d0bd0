"""How a long command stands: one live line on a terminal, now and then a line elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Between plain lines, where nobody watches a live one.
_SECONDS_A_LINE = 2.0


@contextmanager
def lines() -> Iterator[Callable[[str], None]]:
    """Where to send lines as they come."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines()
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda line: live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)


def _plain_lines() -> Callable[[str], None]:
    last = -_SECONDS_A_LINE

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_A_LINE:
            last = time.monotonic()
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    return say
