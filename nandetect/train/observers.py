"""Who is told how a run goes, while it goes. No JAX here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nandetect.history import History
    from nandetect.records import Finding
    from nandetect.train.settings import Snapshot


class Audience:
    """Told of a run what its methods say; each does nothing where it is not written over."""

    def begun(self, findings: Sequence[Finding]) -> None:
        """What the init audit found: the first step comes next."""

    def chunk(self, history: History) -> None:
        """Newly read points, later than all before."""

    def found(self, findings: Sequence[Finding]) -> None:
        """What the run has come to show. Its result has what it shows as a whole."""

    def notice(self, snapshot: Snapshot) -> None:
        """How it stands, several times a second."""


class Together(Audience):
    """Several who are told the same."""

    def __init__(self, *others: Audience):
        self._others = others

    def begun(self, findings: Sequence[Finding]) -> None:
        for other in self._others:
            other.begun(findings)

    def chunk(self, history: History) -> None:
        for other in self._others:
            other.chunk(history)

    def found(self, findings: Sequence[Finding]) -> None:
        for other in self._others:
            other.found(findings)

    def notice(self, snapshot: Snapshot) -> None:
        for other in self._others:
            other.notice(snapshot)
