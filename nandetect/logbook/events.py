"""A run as the event file that TensorBoard reads, written by tensorboardX."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nandetect.errors import UsageError
from nandetect.logbook.reader import RecordedRun
from nandetect.logbook.tables import columns
from nandetect.logbook.writer import ELAPSED

_VERSION = "brain.Event:2"


def require_tensorboard() -> None:
    """Raise `UsageError` where tensorboardX is not installed."""
    if find_spec("tensorboardX") is None:
        raise UsageError("--tensorboard needs tensorboardX: pip install 'nandetect[tensorboard]'")


def file_name(run: RecordedRun) -> str:
    """The name of the event file: always the same for one run, so that a later export replaces an earlier one."""
    return f"events.out.tfevents.{int(run.entry.began)}.{run.entry.name}"


def as_events(run: RecordedRun) -> bytes:
    """The event file: one event a point, with a scalar for each column of `tables.columns`; what was not measured is left out.

    Call `require_tensorboard` first.
    """
    # `SummaryWriter` is not used: it names the file by host and time, stamps each event with the time of writing, rewrites tags such as
    # `gradient/layers[0].w`, and writes from a thread of its own.
    from tensorboardX import RecordWriter

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "events"
        writer = RecordWriter(str(path))
        try:
            for event in _events(run):
                writer.write(event)
        finally:
            writer.close()
        return path.read_bytes()


def _events(run: RecordedRun) -> Iterator[bytes]:
    """The file's version, then the points of the run, each as the bytes of its protocol buffer."""
    # `Event` and `Summary` are made when their module is imported, out of a type checker's sight.
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    yield Event(wall_time=run.entry.began, file_version=_VERSION).SerializeToString()
    table = dict(columns(run.history))
    steps = table.pop("step")
    elapsed = table.pop(ELAPSED, np.zeros(len(steps)))
    for point, step in enumerate(steps):
        measured = ((name, column[point]) for name, column in table.items() if not np.isnan(column[point]))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in measured]
        event = Event(wall_time=run.entry.began + float(elapsed[point]), step=int(step), summary=Summary(value=values))
        yield event.SerializeToString()
