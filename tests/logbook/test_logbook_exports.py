"""A run goes into other programs' formats whole: what they read is what was recorded."""

from __future__ import annotations

import csv
import io
import socket
import threading

import numpy as np
import pytest
from logbooks import LEAVES, piece

from nandetect.history import History, Leaf
from nandetect.logbook import ELAPSED, Logbook, read
from nandetect.logbook.events import as_events, file_name
from nandetect.logbook.tables import as_csv, as_parquet, columns

NAMES = ["step", "loss", "gradient", ELAPSED, "accuracy", "gradient/dense.kernel", "gradient/dense.bias"]


@pytest.fixture
def run(tmp_path):
    book = Logbook(tmp_path / "a-run.sqlite", LEAVES)
    book.append(piece(0, 1500))
    book.append(piece(100_000, 100_003, accuracy=0.5))
    book.append(History(leaves=LEAVES, steps=np.array([2**40]), series={"loss": np.array([np.inf], np.float32)}))
    book.close()
    assert book.path is not None
    return read(book.path)


def test_tensorboard_reads_what_was_recorded(run, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / file_name(run)).write_bytes(as_events(run))
    events = accumulator.EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(NAMES) - {"step", ELAPSED}
    for name in events.Tags()["scalars"]:
        seen = events.Scalars(name)
        column = columns(run.history)[name]
        there = ~np.isnan(column)
        np.testing.assert_array_equal([event.step for event in seen], run.history.steps[there])
        np.testing.assert_array_equal([event.value for event in seen], column[there])
    elapsed = run.history.series[ELAPSED].astype(float)
    np.testing.assert_allclose([event.wall_time for event in events.Scalars("loss")], run.entry.began + elapsed)


def test_the_events_are_the_records_and_checksums_that_tensorboard_writes(run, tmp_path):
    """TensorBoard's reader passes over some faults, so that the bytes of its own writer are the reference."""
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    proto = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    summary = pytest.importorskip("tensorboard.compat.proto.summary_pb2")
    held = io.BytesIO()
    theirs = writer.RecordWriter(held)
    theirs.write(proto.Event(wall_time=run.entry.began, file_version="brain.Event:2").SerializeToString())
    table = dict(columns(run.history))
    steps, elapsed = table.pop("step"), table.pop(ELAPSED)
    for at, step in enumerate(steps):
        values = [summary.Summary.Value(tag=name, simple_value=column[at]) for name, column in table.items() if not np.isnan(column[at])]
        event = proto.Event(wall_time=run.entry.began + float(elapsed[at]), step=int(step), summary=summary.Summary(value=values))
        theirs.write(event.SerializeToString())
    assert as_events(run) == held.getvalue()


def test_a_run_without_a_point_is_still_an_event_file(tmp_path):
    book = Logbook(tmp_path / "run.sqlite")
    book.close()
    assert book.path is not None
    assert b"brain.Event:2" in as_events(read(book.path))


def test_writing_events_leaves_no_thread_and_opens_no_connection(run, monkeypatch):
    def refuse(*arguments):
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    threads = set(threading.enumerate())
    first, second = as_events(run), as_events(run)
    assert first == second
    assert set(threading.enumerate()) <= threads


def test_a_path_with_brackets_is_a_tag_as_it_is(tmp_path):
    leaves = (Leaf(path="layers[0].w", shape=(4, 3), dtype="float32"),)
    book = Logbook(tmp_path / "run.sqlite", leaves)
    book.append(History(leaves=leaves, steps=np.arange(1), layers={"gradient": np.ones((1, 1), np.float32)}))
    book.close()
    assert book.path is not None
    assert b"gradient/layers[0].w" in as_events(read(book.path))


def test_csv_has_a_row_a_point_and_reads_back_to_the_same_numbers(run):
    rows = list(csv.reader(io.StringIO(as_csv(run.history).decode())))
    assert rows[0] == NAMES
    assert len(rows) == 1 + len(run.history)
    assert rows[1][:3] + rows[1][4:] == ["0", "0.0", "0.0", "", "0.0", "0.5"]
    for name, texts in zip(rows[0], zip(*rows[1:], strict=True), strict=True):
        column = columns(run.history)[name]
        np.testing.assert_array_equal(np.array([text or "nan" for text in texts], np.float64).astype(column.dtype), column)


def test_parquet_reads_back_to_the_same_table(run):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(as_parquet(run.history)))
    assert table.column_names == NAMES
    for name, column in columns(run.history).items():
        np.testing.assert_array_equal(table[name].to_numpy(), column)
