"""The rows of a growing record: small ones become large ones, and old ones thinner, so that the file stays within its budget."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from nandetect.history import History, Leaf, join, take
from nandetect.logbook.packing import Packed, pack, unpack
from nandetect.logbook.thinning import sparsest, thin

# Bytes of rows; the file is a little larger, and what is being written lies beside it for a while.
BUDGET = 64 * 2**20
# Points of a full row, unless so many would take more than a share of the budget.
_POINTS = 256
_SHARE = 64
# Fewer full rows than this are never thinned: the first, the last, and two between.
_FEWEST = 4

_COLUMNS, _MARKS = ", ".join(Packed._fields), ", ".join("?" * len(Packed._fields))


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    first: int
    last: int
    size: int


@dataclass(slots=True)
class Chunks:
    """What is known of the rows without reading them. `tail` are the newest points, which lie in rows too small to stay."""

    budget: int = BUDGET
    leaves: tuple[Leaf, ...] = ()
    full: list[_Row] = field(default_factory=list)
    tail: list[tuple[_Row, History]] = field(default_factory=list)

    def copy(self, leaves: tuple[Leaf, ...]) -> Chunks:
        """Another to go on with, so that a transaction that fails leaves this one true."""
        return Chunks(self.budget, leaves, [*self.full], [*self.tail])

    def add(self, connection: sqlite3.Connection, pieces: Sequence[History]) -> None:
        """Write newly read points, make full rows of small ones, and thin what is old while the whole is too large."""
        if not pieces:
            return
        piece = join(pieces, self.leaves)
        points = self._points(piece)
        if sum(len(held) for _, held in self.tail) + len(piece) >= points:
            piece = join([*(held for _, held in self.tail), piece], self.leaves)
            connection.executemany("DELETE FROM chunk WHERE id = ?", [(row.id,) for row, _ in self.tail])
            self.tail = []
            while len(piece) >= points:
                self.full.append(_insert(connection, take(piece, slice(points))))
                piece = take(piece, slice(points, None))
        if len(piece):
            self.tail.append((_insert(connection, piece), piece))
        while len(self.full) > _FEWEST and sum(row.size for row in self.full) > self.budget:
            self._merge(connection, sparsest([(row.first, row.last) for row in self.full], self.full[-1].last), points)

    def _points(self, piece: History) -> int:
        return max(min(_POINTS, self.budget // _SHARE // piece.point_bytes), 2)

    def _merge(self, connection: sqlite3.Connection, index: int, points: int) -> None:
        """Make one row of two."""
        pair = self.full[index : index + 2]
        pieces = [_select(connection, row, self.leaves) for row in pair]
        connection.executemany("DELETE FROM chunk WHERE id = ?", [(row.id,) for row in pair])
        self.full[index : index + 2] = [_insert(connection, thin(join(pieces, self.leaves), points))]


def every(connection: sqlite3.Connection, leaves: tuple[Leaf, ...]) -> History:
    """All rows as one history."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM chunk ORDER BY first")
    return join([unpack(Packed(*row), leaves) for row in rows], leaves)


def _insert(connection: sqlite3.Connection, piece: History) -> _Row:
    packed = pack(piece)
    written = connection.execute(f"INSERT INTO chunk ({_COLUMNS}) VALUES ({_MARKS})", packed)
    assert written.lastrowid is not None
    return _Row(written.lastrowid, packed.first, packed.last, len(packed.steps) + len(packed.numbers))


def _select(connection: sqlite3.Connection, row: _Row, leaves: tuple[Leaf, ...]) -> History:
    return unpack(Packed(*connection.execute(f"SELECT {_COLUMNS} FROM chunk WHERE id = ?", (row.id,)).fetchone()), leaves)
