"""A run as a table, a row a point: the step, the series, and each measure of each layer, `gradient/dense.kernel`."""

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
    """Comma-separated, the names first, each number with as many digits as tell it apart; empty where nothing was measured."""
    written = io.StringIO()
    table = columns(history)
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(table)
    texts = [np.where(np.isnan(column), "", column.astype(str)) for column in table.values()]
    writer.writerows(zip(*texts, strict=True))
    return written.getvalue().encode()


def as_parquet(history: History) -> bytes:
    """As Apache Parquet. `require_parquet` says whether it can be written."""
    import pyarrow
    from pyarrow import parquet

    held = io.BytesIO()
    parquet.write_table(pyarrow.table({name: pyarrow.array(column) for name, column in columns(history).items()}), held)
    return held.getvalue()


def require_parquet() -> None:
    """Raise `UsageError` where pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise UsageError("--parquet needs pyarrow: pip install 'nandetect[parquet]'")
