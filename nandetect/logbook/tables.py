"""A run as a table with a row for each point: the step, the series, and each measure of each layer, `gradient/dense.kernel`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np

from nandetect.errors import UsageError
from nandetect.history import History


def columns(history: History) -> Mapping[str, np.ndarray]:
    """The columns by name: int64 `step`, all others float32, NaN where nothing was measured."""
    layers = {
        f"{measure}/{leaf.path}": values[:, index]
        for measure, values in history.layers.items()
        for index, leaf in enumerate(history.leaves)
    }
    return {"step": history.steps, **history.series, **layers}


def as_csv(history: History) -> bytes:
    """The table as CSV: the names first, each number with as many digits as tell it apart, empty where nothing was measured."""
    buffer = io.StringIO()
    table = columns(history)
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table)
    texts = [np.where(np.isnan(column), "", column.astype(str)) for column in table.values()]
    writer.writerows(zip(*texts, strict=True))
    return buffer.getvalue().encode()


def as_parquet(history: History) -> bytes:
    """The table as Apache Parquet. Call `require_parquet` first."""
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({name: pyarrow.array(column) for name, column in columns(history).items()}), buffer)
    return buffer.getvalue()


def require_parquet() -> None:
    """Raise `UsageError` where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise UsageError("--parquet needs pyarrow: pip install 'nandetect[parquet]'")
