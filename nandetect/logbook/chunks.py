"""The rows of a growing record: small rows are joined to full ones, and old ones thinned, so that the file stays within its budget."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from nandetect.history import History, Leaf, join, take
from nandetect.logbook.packing import Packed, pack, unpack
from nandetect.logbook.thinning import sparsest, thin

# Bytes that all rows may take. The file is a little larger, and for a while what is being written lies beside it.
BUDGET = 64 * 2**20
# Points of a full row; fewer where so many would take more than one 64th of the budget.
_POINTS = 256
_SHARE = 64
# Full rows that are never thinned: the first, the last, and two between.
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
    """The index of the rows, known without reading them. `tail` holds the newest points, in rows that are still too small to be full."""

    budget: int = BUDGET
    leaves: tuple[Leaf, ...] = ()
    full: list[_Row] = field(default_factory=list)
    tail: list[tuple[_Row, History]] = field(default_factory=list)

    def copy(self, leaves: tuple[Leaf, ...]) -> Chunks:
        """A copy to change in a transaction: where that fails, this one is still true."""
        return Chunks(self.budget, leaves, [*self.full], [*self.tail])

    def add(self, connection: sqlite3.Connection, pieces: Sequence[History]) -> None:
        """Write newly read points, join small rows to full ones, and thin old rows while all together are over the budget."""
        if not pieces:
            return
        piece = join(pieces, self.leaves)
        points = self._points(piece)
        if sum(len(newest) for _, newest in self.tail) + len(piece) >= points:
            piece = join([*(newest for _, newest in self.tail), piece], self.leaves)
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
        """Make one row, thinned, of this full row and the next."""
        pair = self.full[index : index + 2]
        pieces = [_select(connection, row, self.leaves) for row in pair]
        connection.executemany("DELETE FROM chunk WHERE id = ?", [(row.id,) for row in pair])
        self.full[index : index + 2] = [_insert(connection, thin(join(pieces, self.leaves), points))]


def all_rows(connection: sqlite3.Connection, leaves: tuple[Leaf, ...]) -> History:
    """All rows as one history."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM chunk ORDER BY first")
    return join([unpack(Packed(*row), leaves) for row in rows], leaves)


def _insert(connection: sqlite3.Connection, piece: History) -> _Row:
    packed = pack(piece)
    cursor = connection.execute(f"INSERT INTO chunk ({_COLUMNS}) VALUES ({_MARKS})", packed)
    assert cursor.lastrowid is not None
    return _Row(cursor.lastrowid, packed.first, packed.last, len(packed.steps) + len(packed.numbers))


def _select(connection: sqlite3.Connection, row: _Row, leaves: tuple[Leaf, ...]) -> History:
    return unpack(Packed(*connection.execute(f"SELECT {_COLUMNS} FROM chunk WHERE id = ?", (row.id,)).fetchone()), leaves)
