"""The archive: every tick of a span in a file, old and superfluous files removed, a full disk survived."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from server.clock import ManualClock
from server.live import columnar
from server.live.archive import DAY_S, Archive, Write
from server.live.disk import write_whole
from server.live.history import SERIES, SPAN, SPARE, History
from server.live.ring import Ring
from server.live.series import HEAD, UNIX_MS, WIDTH
from server.metrics import Metrics
from tests.support.logged import logged
from tests.support.published import EPOCH, World
from tests.support.resident import IS_TOLD, resident_code

TICK_MS = 1_000


class Kept:
    """A history in memory and its archive, under a clock that moves with the ticks."""

    def __init__(
        self, folder: Path, *, begin: int = 0, days: int = 7, megabytes: int = 100, write: Write = write_whole
    ):
        self.folder, self.clock, self.metrics = folder, ManualClock(unix_ns=0), Metrics()
        self.history = History(10, Ring(1, SPAN + SPARE, HEAD + WIDTH))
        self.rows = np.tile(World().random.integers(0, 1 << 40, HEAD + WIDTH), (SPAN + SPARE, 1))
        self.tick = begin
        self.archive = Archive(
            folder, self.history, EPOCH, days=days, megabytes=megabytes, metrics=self.metrics, clock=self.clock,
            write=write,
        )  # fmt: skip
        self.archive.open()

    def live(self, ticks: int) -> None:
        """Let ticks pass, and the archive look at them."""
        for begin in range(self.tick, self.tick + ticks, 100):
            count = min(100, self.tick + ticks - begin)
            self.rows[:count, 0] = np.arange(begin, begin + count)
            self.rows[:count, UNIX_MS] = self.rows[:count, 0] * TICK_MS
            self.rows[:count, HEAD:] += 1
            self.history.hot.extend(self.rows[:count].copy())
            self.clock.advance(count * TICK_MS / 1_000)
            self.archive.step()
        self.tick += ticks

    def names(self) -> list[tuple[int, int]]:
        """Return first and last tick of the files that are there."""
        found = sorted(path.name.split("-") for path in self.folder.iterdir())
        return [(int(name[1]), int(name[2])) for name in found]

    def count(self, name: str, *labels: str) -> float:
        """Return the value of a metric."""
        metric: Any = getattr(self.metrics, name)
        return float((metric.labels(*labels) if labels else metric)._value.get())


def test_a_span_that_has_ended_is_a_file(tmp_path: Path) -> None:
    """Every tick of it in order, every series under its name, the integers as streamed, unit and scale beside them."""
    kept = Kept(tmp_path / "archive", begin=37)
    kept.live(2 * SPAN)

    assert kept.names() == [(37, SPAN - 1), (SPAN, 2 * SPAN - 1)]
    table = pq.read_table(kept.archive.spans[1].path)
    rows = kept.history.hot.read(SPAN, SPAN)
    series = SERIES["food.price"]
    assert table.column_names == ["tick", "time", *SERIES]
    assert table["tick"].to_pylist() == list(range(SPAN, 2 * SPAN))
    assert table["time"].cast("int64").to_pylist() == rows[:, UNIX_MS].tolist()
    assert table["food.price"].to_pylist() == rows[:, HEAD + series.column].tolist()
    assert table.schema.field("food.price").metadata == {b"unit": b"credits", b"scale": b"1000000"}
    assert table.schema.metadata[b"epoch"] == EPOCH.encode()
    assert kept.count("history_archive_files") == kept.count("history_archive_spans", "written") == 2
    assert kept.count("history_archive_bytes") == sum(path.stat().st_size for path in kept.folder.iterdir())


def test_what_writing_a_span_took_is_given_back(tmp_path: Path) -> None:
    """Of the libraries that write Parquet next to nothing stays in memory until the next span."""
    kept = Kept(tmp_path / "archive")
    kept.live(SPAN - 100)
    columnar.span_bytes(kept.rows, {})
    before = resident_code()

    kept.live(100)

    assert not IS_TOLD or before > 5_000_000
    assert resident_code() <= before / 5


def test_without_pyarrow_it_is_numpys_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in the log, with what to install; the same numbers."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with logged() as log:
        kept = Kept(tmp_path)
    kept.live(SPAN)

    [span] = kept.archive.spans
    rows = kept.history.hot.read(0, SPAN)
    with np.load(span.path) as held:
        assert held["names"].tolist() == list(SERIES)
        assert held["tick"].tolist() == list(range(SPAN))
        assert held["values"][:, 5].tolist() == rows[:, HEAD + list(SERIES.values())[5].column].tolist()
        assert held["scales"][5] == list(SERIES.values())[5].field.scale
    assert (span.path.suffix, log.lines("info")["archive_format"]["format"]) == (".npz", "npz")
    assert "pip install" in log.lines("info")["archive_format"]["reason"]


def test_files_are_removed_by_age(tmp_path: Path) -> None:
    """A file stays for so many days after its last tick; one of another world as well."""
    stranger = tmp_path / f"{'f' * 16}-{0:012d}-{9:012d}-{100}.parquet"
    stranger.write_bytes(b"x")
    kept = Kept(tmp_path, days=1)
    kept.live(SPAN)
    assert len(kept.names()) == 2

    kept.clock.advance(DAY_S - SPAN + 50)
    kept.live(100)
    assert kept.names() == [(0, SPAN - 1)]

    kept.clock.advance(SPAN)
    kept.live(100)
    assert kept.names() == []
    assert kept.count("history_archive_removed", "age") == 2
    assert kept.count("history_archive_age_seconds_max") == DAY_S


def test_files_are_removed_by_size(tmp_path: Path) -> None:
    """The oldest go first, as many as are too much."""
    filler = tmp_path / f"{EPOCH}-{0:012d}-{SPAN - 1:012d}-1.parquet"
    filler.write_bytes(bytes(900_000))
    kept = Kept(tmp_path, begin=SPAN, megabytes=1)
    kept.live(SPAN)
    size = kept.archive.spans[-1].size
    assert (size < 1_000_000, filler.exists()) == (True, size <= 100_000)

    kept.live(8 * SPAN)

    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert total <= 1_000_000
    assert not filler.exists()
    assert kept.names()[-1] == (9 * SPAN, 10 * SPAN - 1)
    assert kept.count("history_archive_removed", "size") >= 1


def test_a_full_disk_is_said_and_tried_again(tmp_path: Path) -> None:
    """Nothing half written stays, the archive goes on when there is room; what nobody has any more is missing."""
    failing = [True]

    def write(path: Path, parts: list[bytes]) -> None:
        if failing[0]:
            path.with_name(path.name + ".new").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_whole(path, parts)

    kept = Kept(tmp_path, write=write)
    with logged() as log:
        kept.live(SPAN + 100)
        assert kept.names() == []
        failing[0] = False
        kept.live(100)
    assert kept.names() == [(0, SPAN - 1)]
    assert "No space left" in log.lines("error")["archive_not_written"]["error"]
    assert log.lines("info")["archive_written_again"]["first"] == 0
    assert kept.count("history_archive_spans", "failed") == 2

    failing[0] = True
    kept.live(2 * SPAN)
    failing[0] = False
    with logged() as log:
        kept.live(100)
    lost = log.lines("warning")["archive_ticks_missing"]
    first = kept.tick - SPAN - SPARE
    assert (lost["first"], lost["last"]) == (SPAN, first - 1)
    assert kept.names() == [(0, SPAN - 1), (first, 3 * SPAN - 1)]
    assert kept.count("history_archive_ticks_missing") == first - SPAN


def test_a_folder_that_is_none_stops_nobody(tmp_path: Path) -> None:
    """A file stands where the folder should be: said once, counted, tried again."""
    (tmp_path / "archive").write_bytes(b"")
    with logged() as log:
        kept = Kept(tmp_path / "archive")
        kept.live(SPAN + 100)

    assert "archive_not_written" in log.lines("error")
    assert kept.count("history_archive_spans", "failed") >= 2


def test_a_restart_goes_on_behind_the_last_file(tmp_path: Path) -> None:
    """No span twice, none left out; what a killed process left half written is removed."""
    before = Kept(tmp_path)
    before.live(SPAN)
    (tmp_path / "half.parquet.new").write_bytes(b"half")
    stamps = [path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")]

    after = Kept(tmp_path, begin=SPAN - 50)
    after.live(SPAN + 50)

    assert after.names() == [(0, SPAN - 1), (SPAN, 2 * SPAN - 1)]
    assert stamps[0] in [path.stat().st_mtime_ns for path in tmp_path.iterdir()]
    assert not list(tmp_path.glob("*.new"))
