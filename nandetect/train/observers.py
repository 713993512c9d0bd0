"""Observers of a run: objects that are told how it goes, while it goes. No JAX here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nandetect.history import History
    from nandetect.records import Finding
    from nandetect.train.settings import Snapshot


class Observer:
    """Is told how a run goes, by methods that do nothing unless a subclass overrides them."""

    def begun(self, findings: Sequence[Finding]) -> None:
        """The findings of the init audit, just before the first step."""

    def chunk(self, history: History) -> None:
        """Newly read points of the run, later than all before."""

    def found(self, findings: Sequence[Finding]) -> None:
        """New findings of the run so far; those of the whole run are in its result."""

    def notice(self, snapshot: Snapshot) -> None:
        """How the run stands, several times a second."""


class Observers(Observer):
    """Several observers that are told the same."""

    def __init__(self, *observers: Observer):
        self._observers = observers

    def begun(self, findings: Sequence[Finding]) -> None:
        for observer in self._observers:
            observer.begun(findings)

    def chunk(self, history: History) -> None:
        for observer in self._observers:
            observer.chunk(history)

    def found(self, findings: Sequence[Finding]) -> None:
        for observer in self._observers:
            observer.found(findings)

    def notice(self, snapshot: Snapshot) -> None:
        for observer in self._observers:
            observer.notice(snapshot)
