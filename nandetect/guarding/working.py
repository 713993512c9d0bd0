"""Whether nandetect itself is at work in a thread: what runs then is not the program's, and is not watched."""

from __future__ import annotations

import threading


class Working(threading.local):
    """How many `with working:` blocks a thread is inside of."""

    now = 0

    def __enter__(self) -> None:
        self.now += 1

    def __exit__(self, *error: object) -> None:
        self.now -= 1


working = Working()
