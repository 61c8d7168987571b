"""What was public of replayed ticks, as a Parquet file: a series a column, the numbers as /api/history has them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from engine.events import PublicState
from server.live import columnar
from server.live.errors import WorldRefused
from server.live.frames import quantise
from server.live.history import SPAN
from server.live.series import Rows, pack


class HistoryExport:
    """Takes tick after tick; the file is there under its name once finish() returned, or not at all.

    Raises WorldRefused where pyarrow is missing, OSError when the file cannot be written.
    """

    def __init__(self, path: Path, epoch: str) -> None:
        if not columnar.is_available():
            raise WorldRefused(f"{path}: writing it {columnar.missing()}")
        self._path = path
        self._temporary = path.with_name(path.name + ".new")
        self._file = columnar.ParquetExport(self._temporary, {"epoch": epoch})
        self._rows: list[Rows] = []
        self.ticks = 0
        """How many were taken."""

    def take(self, public: PublicState, unix_ns: int) -> None:
        """Add a tick. unix_ns: when it began."""
        self._rows.append(pack(public.tick, quantise(public), unix_ns))
        self.ticks += 1
        if len(self._rows) == SPAN:
            self._write()

    def finish(self) -> None:
        """Complete the file."""
        if self._rows:
            self._write()
        self._file.close()
        self._temporary.replace(self._path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._temporary.unlink()

    def _write(self) -> None:
        self._file.write(np.stack(self._rows))
        self._rows.clear()
