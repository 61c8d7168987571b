"""Finished spans of the past as files, for whoever wants all of it: written as they end, removed by policy.

history/archive/EPOCH-FIRST-LAST-SECONDS.parquet: every tick of a span, every series a column (columnar.span_bytes);
.npz with the arrays tick, unix_ms, names, scales and values where pyarrow is not installed. SECONDS: when the last of
its ticks began, since 1970. Source: specification 004, automatic data archival and cleanup.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import structlog

from server.clock import Clock
from server.live import columnar
from server.live.disk import write_whole
from server.live.history import SPAN, History
from server.live.series import HEAD, SERIES, TICK, UNIX_MS, Rows
from server.memory import give_back
from server.metrics import Metrics

FOLDER_NAME = "archive"
DAY_S: Final = 86_400
MEGABYTE: Final = 1_000_000
_NAME = re.compile(r"([0-9a-f]{16})-(\d{12})-(\d{12})-(\d+)\.(parquet|npz)")

Write = Callable[[Path, list[bytes]], None]

log = structlog.get_logger("arena.history")


class Span(NamedTuple):
    """A file of the archive. first, last: its ticks; unix_s: when the last one began."""

    unix_s: int
    epoch: str
    first: int
    last: int
    size: int
    path: Path


class Archive:
    """Writes the spans of a history and keeps no more than days and megabytes allow; for one thread.

    epoch: of the world. write: puts a file there as a whole or not at all, raising OSError.
    """

    def __init__(
        self,
        folder: Path,
        history: History,
        epoch: str,
        *,
        days: int,
        megabytes: int,
        metrics: Metrics,
        clock: Clock,
        write: Write = write_whole,
    ) -> None:
        self.spans: list[Span] = []
        """Oldest first."""
        self._folder = folder
        self._history = history
        self._epoch = epoch
        self._age_s_max, self._bytes_max = days * DAY_S, megabytes * MEGABYTE
        self._metrics = metrics
        self._clock = clock
        self._write = write
        self._next = 0
        """First tick of the span to be written next."""
        self._failing = False
        metrics.history_archive_age_seconds_max.set(self._age_s_max)
        metrics.history_archive_bytes_max.set(self._bytes_max)

    def open(self) -> None:
        """Look at what is there. A folder that cannot be used is said and tried again with every span."""
        if not columnar.is_available():
            log.info("archive_format", format="npz", reason=f"Parquet {columnar.missing()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self._folder.glob("*.new"):
                path.unlink()
            self.spans = sorted(_spans(self._folder))
        except OSError as error:
            self._fail(error)
        ours = [span.last for span in self.spans if span.epoch == self._epoch]
        self._next = max(ours, default=-1) + 1
        self._count()

    def step(self) -> None:
        """Write the spans that have ended, remove what is too much."""
        hot, before = self._history.hot, self._next
        while hot.first <= hot.newest:
            # the first span of a ring begins where the ring does
            begin = max(self._next, hot.first)
            last = begin // SPAN * SPAN + SPAN - 1
            if last > hot.newest:
                break
            if not self._add(hot.read(begin, last - begin + 1)):
                break
            if self._next and begin > self._next:
                log.warning("archive_ticks_missing", first=self._next, last=begin - 1)
                self._metrics.history_archive_ticks_missing.inc(begin - self._next)
            self._next = last + 1
        self._clean()
        if self._next != before:
            # a span of Parquet leaves 55 MB with the allocator and in the libraries' code until the next one
            give_back()

    def _add(self, rows: Rows) -> bool:
        """Write a span; return whether it is there. One that is not is tried again for as long as the ring has it."""
        first, last, unix_s = int(rows[0, TICK]), int(rows[-1, TICK]), int(rows[-1, UNIX_MS]) // 1_000
        suffix, data = _encoded(rows, self._epoch)
        path = self._folder / f"{self._epoch}-{first:012d}-{last:012d}-{unix_s}.{suffix}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(path, [data])
        except OSError as error:
            # half a file would fill the disk further; where even that fails there is none
            with suppress(OSError):
                path.with_name(path.name + ".new").unlink()
            self._fail(error)
            return False
        if self._failing:
            log.info("archive_written_again", first=first)
        self._failing = False
        self._metrics.history_archive_spans.labels("written").inc()
        self.spans.append(Span(unix_s, self._epoch, first, last, len(data), path))
        return True

    def _fail(self, error: OSError) -> None:
        self._metrics.history_archive_spans.labels("failed").inc()
        if not self._failing:
            log.error("archive_not_written", folder=str(self._folder), error=str(error))
        self._failing = True

    def _clean(self) -> None:
        """Remove the oldest spans while they are too old or all of them together too large."""
        oldest_s = self._clock.unix_ns() // 1_000_000_000 - self._age_s_max
        size = sum(span.size for span in self.spans)
        while self.spans:
            span = self.spans[0]
            if not (is_old := span.unix_s < oldest_s) and size <= self._bytes_max:
                break
            try:
                span.path.unlink(missing_ok=True)
            except OSError as error:
                self._fail(error)
                break
            del self.spans[0]
            size -= span.size
            self._metrics.history_archive_removed.labels("age" if is_old else "size").inc()
        self._count()

    def _count(self) -> None:
        self._metrics.history_archive_files.set(len(self.spans))
        self._metrics.history_archive_bytes.set(sum(span.size for span in self.spans))


def _encoded(rows: Rows, epoch: str) -> tuple[str, bytes]:
    """Return a span as the suffix and content of its file."""
    if columnar.is_available():
        return "parquet", columnar.span_bytes(rows, {"epoch": epoch})
    columns = [series.column for series in SERIES.values()]
    sink = io.BytesIO()
    np.savez_compressed(
        sink,
        tick=rows[:, TICK],
        unix_ms=rows[:, UNIX_MS],
        names=np.array(list(SERIES)),
        scales=np.array([series.field.scale for series in SERIES.values()]),
        values=rows[:, HEAD:][:, columns],
    )
    return "npz", sink.getvalue()


def _spans(folder: Path) -> Iterable[Span]:
    for path in folder.iterdir():
        if named := _NAME.fullmatch(path.name):
            epoch, first, last, unix_s, _ = named.groups()
            yield Span(int(unix_s), epoch, int(first), int(last), path.stat().st_size, path)
