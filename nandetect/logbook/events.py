"""A run as the event file that TensorBoard reads: TFRecord framing around hand-written protocol buffers, of which it needs five fields.

The formats are those of tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from nandetect.logbook.reader import Run
from nandetect.logbook.tables import columns
from nandetect.logbook.writer import ELAPSED

_VERSION = b"brain.Event:2"
# Points that are framed at once: a checksum goes byte by byte, through all of one length together.
_AT_ONCE = 1024
_POLYNOMIAL = 0x82F63B78


def file_name(run: Run) -> str:
    """The same for the same run, so that a later export takes the place of an earlier one."""
    return f"events.out.tfevents.{int(run.entry.began)}.{run.entry.name}"


def as_events(run: Run) -> bytes:
    """One event a point, with a scalar for each column of `tables.columns`; what was not measured is left out."""
    table = dict(columns(run.history))
    steps = table.pop("step")
    elapsed = table.pop(ELAPSED, np.zeros(len(steps)))
    tags = [_field(1, name.encode()) for name in table]
    values = np.stack(list(table.values()), axis=1).astype("<f4") if table else np.zeros((len(steps), 0), "<f4")
    parts = list(_framed([_double(1, run.entry.began) + _field(3, _VERSION)]))
    for start in range(0, len(steps), _AT_ONCE):
        points = range(start, min(start + _AT_ONCE, len(steps)))
        parts += _framed([_event(run.entry.began + float(elapsed[at]), int(steps[at]), tags, values[at]) for at in points])
    return b"".join(parts)


def _event(time: float, step: int, tags: Sequence[bytes], values: np.ndarray) -> bytes:
    known = np.flatnonzero(~np.isnan(values)).tolist()
    raw = values.tobytes()
    scalars = [_field(1, tags[at] + b"\x15" + raw[4 * at : 4 * at + 4]) for at in known]
    # Protocol buffers leave out a zero.
    at_step = b"\x10" + _varint(step) if step else b""
    return _double(1, time) + at_step + _field(5, b"".join(scalars))


def _double(number: int, value: float) -> bytes:
    return bytes([number << 3 | 1]) + struct.pack("<d", value)


def _field(number: int, content: bytes) -> bytes:
    """A field of known length: a string, or a message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _framed(records: Sequence[bytes]) -> Iterator[bytes]:
    """Length, its checksum, the record, its checksum."""
    for length, alike in groupby(records, key=len):
        some = list(alike)
        head = struct.pack("<Q", length)
        head += struct.pack("<I", int(_masked(np.frombuffer(head, np.uint8)[None])[0]))
        sums = _masked(np.frombuffer(b"".join(some), np.uint8).reshape(len(some), length)).astype("<u4")
        for record, checksum in zip(some, sums, strict=True):
            yield head + record + checksum.tobytes()


def _masked(rows: np.ndarray) -> np.ndarray:
    """The CRC-32C of each row, turned and shifted as TFRecord wants it."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in np.ascontiguousarray(rows.T):
        crc = _TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    crc = ~crc
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table


_TABLE = _table()
