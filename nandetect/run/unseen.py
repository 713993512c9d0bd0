"""What a program did that was not looked at, so that the line at the end does not say more than was seen. No JAX."""

from __future__ import annotations

import threading
from collections import Counter

from nandetect import wording
from nandetect.errors import NonFiniteError, said


class Unseen:
    """Phrases, each with how often it happened."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, noun: str, after: str = "", count: int = 1) -> None:
        """So many more of something, or less where it has been looked at after all: `add("child process")`, `add("call", "that raised
        ValueError")`."""
        with self._lock:
            self._counts[noun, after] += count

    def failed(self, error: Exception, noun: str = "look") -> None:
        """Something of nandetect's own failed. What stops the program because it was asked for is raised again; all else is noted."""
        if isinstance(error, NonFiniteError):
            raise error
        self.add(noun, f"that failed ({said(error)})")

    def has(self, noun: str, after: str = "") -> bool:
        """Whether there is any of it."""
        return self._counts[noun, after] > 0

    def forget(self, noun: str, after: str = "") -> None:
        """This has been looked at after all."""
        with self._lock:
            self._counts.pop((noun, after), None)

    def phrases(self) -> list[str]:
        """`2 child processes`, `1 call that raised ValueError`."""
        return [f"{_counted(count, noun)} {after}".rstrip() for (noun, after), count in self._counts.items() if count > 0]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}es" if count != 1 and noun.endswith("s") else wording.counted(count, noun)
