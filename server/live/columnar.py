"""The one door to pyarrow, which the extra `studies` brings: what others read of the past as Parquet and Arrow.

Without it everything else works, the archive is written in NumPy's format instead, and whoever asks for these formats
is told what is missing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from server import extras
from server.live.series import HEAD, SERIES, TICK, UNIX_MS, Rows

if TYPE_CHECKING:
    from server.live.history import Page

PARQUET: Final = "application/vnd.apache.parquet"
ARROW: Final = "application/vnd.apache.arrow.stream"
MISSING: Final = "needs pyarrow, which this server was installed without"


def is_available() -> bool:
    """Say whether Parquet and Arrow can be written here."""
    return find_spec("pyarrow") is not None


def missing() -> str:
    """Return what is missing and how to get it, for the operator: it names a path of this machine."""
    return f"{MISSING}: {extras.how_to_install('pyarrow')}"


def load() -> None:
    """Load the library, if it is there, before anything waits for an answer: it takes 50 ms."""
    if is_available():
        import pyarrow.parquet  # noqa: F401


def page_bytes(page: Page, media: str, about: Mapping[str, str]) -> bytes:
    """Return a page as Parquet or as an Arrow stream: its columns, and what it is about in the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = zip(*page.rows, strict=True) if page.rows else [()] * len(page.columns)
    arrays = [
        _times(pa, np.array([value or 0 for value in column], np.int64))
        if name == "time"
        else pa.array(column, pa.int64() if name == "tick" else pa.float64())
        for name, column in zip(page.columns, columns, strict=True)
    ]
    table = pa.table(arrays, list(page.columns)).replace_schema_metadata(dict(about))
    sink = io.BytesIO()
    if media == PARQUET:
        pq.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def span_bytes(rows: Rows, about: Mapping[str, str]) -> bytes:
    """Return rows as Parquet: a row a tick, a column a series, the integers as streamed, unit and scale in the schema.

    Whole numbers that change little from row to row take a fifth of what they take as fractions: 2 KB a tick.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field("tick", pa.int64()), pa.field("time", pa.timestamp("ms", "UTC"))]
    arrays = [pa.array(rows[:, TICK]), _times(pa, rows[:, UNIX_MS])]
    for series in SERIES.values():
        metadata = {"unit": series.field.unit, "scale": str(series.field.scale)}
        fields.append(pa.field(series.name, pa.int64(), metadata=metadata))
        arrays.append(pa.array(np.ascontiguousarray(rows[:, HEAD + series.column])))
    table = pa.table(arrays, schema=pa.schema(fields, dict(about)))
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=False,
        write_statistics=["tick"],
        column_encoding={name: "DELTA_BINARY_PACKED" for name in table.schema.names},
    )
    return sink.getvalue()


class ParquetExport:
    """A Parquet file that grows by rows: a row a tick, a column a series, the numbers as /api/history shows them."""

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        fields = [pa.field("tick", pa.int64()), pa.field("time", pa.timestamp("ms", "UTC"))]
        for series in SERIES.values():
            kind = pa.int64() if series.field.scale == 1 else pa.float64()
            fields.append(pa.field(series.name, kind, metadata={"unit": series.field.unit}))
        self._schema = pa.schema(fields, dict(about))
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, rows: Rows) -> None:
        """Add rows. Raises OSError."""
        pa = self._pa
        arrays = [pa.array(rows[:, TICK]), _times(pa, rows[:, UNIX_MS])]
        for series in SERIES.values():
            whole = np.ascontiguousarray(rows[:, HEAD + series.column])
            arrays.append(pa.array(whole if series.field.scale == 1 else whole / series.field.scale))
        self._writer.write_table(pa.table(arrays, schema=self._schema))

    def close(self) -> None:
        """Complete the file. Raises OSError."""
        self._writer.close()


def _times(pa: Any, unix_ms: NDArray[np.int64]) -> Any:
    """Return times as Arrow has them; 0 was not observed."""
    # as dates from the start: a cast loads what pyarrow can compute with, which takes 13 MB and 50 ms
    dates = np.ascontiguousarray(unix_ms).view("datetime64[ms]")
    return pa.array(dates, pa.timestamp("ms", "UTC"), mask=unix_ms == 0)
