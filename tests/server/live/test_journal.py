"""The journal on disk: durable in groups, in order, and finished for good by the first failure."""

from __future__ import annotations

import asyncio
import errno
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.journal import RecordKind, Scan, encode_actions
from server.clock import SystemClock
from server.live.disk import write_whole
from server.live.errors import JournalFailed
from server.live.journal import (
    FIRST,
    DiskFile,
    Journal,
    JournalFile,
    create_segment,
    cut_tail,
    scan_segment,
    segment_paths,
)
from server.metrics import Metrics
from tests.support.disks import FailingFile, GatedFile
from tests.support.journals import action_row, some_actions
from tests.support.live import soon, until


def new_segment(folder: Path) -> Path:
    """Write a segment with a genesis record in it."""
    return create_segment(folder, FIRST, b"{}")


def open_journal(
    path: Path, open_file: Callable[[Path], JournalFile] = DiskFile, metrics: Metrics | None = None
) -> Journal:
    """Open a segment where it ends."""
    scan = scan_segment(path)
    for _ in scan:
        pass
    journal = Journal(
        open_file(path),
        next_seq=scan.next_sequence,
        chain=scan.chain,
        metrics=metrics or Metrics(),
        clock=SystemClock(),
        next_file=lambda start: open_file(create_segment(path.parent, start)),
    )
    journal.start()
    return journal


def texts(path: Path) -> list[str]:
    """Return the payloads of the KEY records of a segment; they stand for any text here."""
    return [str(record.payload, "utf-8") for record in scan_segment(path) if record.kind is RecordKind.KEY]


async def test_a_durable_record_is_in_the_file(tmp_path: Path) -> None:
    """When durable() returns, whoever reads the file finds the record, and all before it."""
    path = new_segment(tmp_path)
    journal = open_journal(path)

    for text in ("one", "two"):
        journal.append(RecordKind.KEY, text.encode())
    seq = journal.append(RecordKind.KEY, b"three")
    await soon(journal.durable(seq))

    assert (seq, journal.durable_seq) == (4, 4)
    assert texts(path) == ["one", "two", "three"]
    await soon(journal.close())


async def test_records_appended_during_a_sync_share_the_next_one(tmp_path: Path) -> None:
    """While the disk is busy records gather; one sync then makes all of them durable."""
    path = new_segment(tmp_path)
    files: list[GatedFile] = []
    metrics = Metrics()

    def open_gated(where: Path) -> GatedFile:
        files.append(GatedFile(where))
        return files[0]

    journal = open_journal(path, open_gated, metrics)
    with files[0].shut():
        first = journal.append(RecordKind.KEY, b"0")
        await until(lambda: bool(files[0].writes))
        waiting = [
            asyncio.create_task(journal.durable(journal.append(RecordKind.KEY, b"%d" % i))) for i in range(1, 500)
        ]
        await asyncio.sleep(0)
        assert journal.durable_seq < first
    await soon(asyncio.gather(*waiting))

    assert len(files[0].writes) == 2
    assert texts(path) == [str(i) for i in range(500)]
    assert metrics.registry.get_sample_value("arena_journal_records_total", {"kind": "key"}) == 500
    assert metrics.registry.get_sample_value("arena_journal_syncs_total") == 2
    await soon(journal.close())


async def test_a_record_may_take_many_sequences(tmp_path: Path) -> None:
    """They are durable together; the next record has the one behind them; the next process goes on there."""
    path = new_segment(tmp_path)
    journal = open_journal(path)
    actions = some_actions(np.concatenate([action_row()] * 3), "a", "b", "c")

    first = journal.append(RecordKind.ACTIONS, encode_actions(actions), 3)
    then = journal.append(RecordKind.KEY, b"then")
    await soon(journal.durable(first + 2))

    assert (first, then, journal.next_seq) == (2, 5, 6)
    await soon(journal.close())
    scan = scan_segment(path)
    assert [(record.sequence, record.sequences) for record in scan] == [(1, 1), (2, 3), (5, 1), (6, 1)]
    assert scan.torn is None
    assert open_journal(path).next_seq == 7


async def test_a_lone_record_waits_for_nobody(tmp_path: Path) -> None:
    """One record after another, each awaited, is one sync each."""
    metrics = Metrics()
    journal = open_journal(new_segment(tmp_path), metrics=metrics)

    for _ in range(5):
        await soon(journal.durable(journal.append(RecordKind.KEY, b"x")))

    assert metrics.registry.get_sample_value("arena_journal_syncs_total") == 5
    assert metrics.registry.get_sample_value("arena_journal_durable_seq") == 6
    await soon(journal.close())


async def test_a_closed_journal_says_so_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    """A clean stop is marked; the next process continues sequence and chain."""
    path = new_segment(tmp_path)
    journal = open_journal(path)
    journal.append(RecordKind.KEY, b"before")
    await soon(journal.close())
    stopped = scan_segment(path)
    count = sum(1 for _ in stopped)

    resumed = open_journal(path)
    seq = resumed.append(RecordKind.KEY, b"after")
    await soon(resumed.close())

    assert (stopped.is_clean, count, seq) == (True, 3, 4)
    assert texts(path) == ["before", "after"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
async def test_the_first_failure_is_final_and_loses_nothing_acknowledged(tmp_path: Path, call: int, error: int) -> None:
    """Whichever write or sync fails: what was acknowledged is in the file, nothing is acknowledged or taken again."""
    path = new_segment(tmp_path)
    journal = open_journal(path, lambda where: FailingFile(where, call, error))
    acknowledged: list[str] = []

    async def acknowledge() -> None:
        for i in range(9):
            await soon(journal.durable(journal.append(RecordKind.KEY, b"%d" % i)))
            acknowledged.append(str(i))

    with pytest.raises(JournalFailed):
        await acknowledge()

    assert journal.failed
    assert acknowledged == ["0", "1"][: (call - 1) // 2]
    assert texts(path)[: len(acknowledged)] == acknowledged
    assert sum(1 for _ in scan_segment(path)) >= 1, "what is left still opens"
    with pytest.raises(JournalFailed):
        journal.append(RecordKind.KEY, b"more")
    with pytest.raises(JournalFailed):
        await soon(journal.close())


async def test_everybody_who_waits_learns_of_the_failure(tmp_path: Path) -> None:
    """All waiters get the error, whichever batch their record was in."""
    journal = open_journal(new_segment(tmp_path), lambda where: FailingFile(where, 2))

    waiting = [journal.durable(journal.append(RecordKind.KEY, b"%d" % i)) for i in range(50)]
    results = await soon(asyncio.gather(*waiting, return_exceptions=True))

    assert {type(result) for result in results} == {JournalFailed}
    with pytest.raises(JournalFailed):
        await soon(journal.close())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_writer_that_dies_of_anything_else_leaves_nobody_waiting(tmp_path: Path) -> None:
    """Not only the disk can fail: whatever ends the thread is final as well."""

    class NoMemory(DiskFile):
        def write(self, data: bytes) -> None:
            raise MemoryError

    journal = open_journal(new_segment(tmp_path), NoMemory)

    with pytest.raises(JournalFailed, match="thread"):
        await soon(journal.durable(journal.append(RecordKind.KEY, b"x")))

    assert journal.failed
    with pytest.raises(JournalFailed):
        await soon(journal.close())


def test_nobody_else_may_read_a_segment_for_it_holds_the_seed(tmp_path: Path) -> None:
    """Files of the journal are the owner's alone."""
    path = new_segment(tmp_path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert segment_paths(tmp_path) == [path]
    assert segment_paths(tmp_path / "nowhere") == []


def test_a_torn_tail_is_cut_once(tmp_path: Path) -> None:
    """After the cut the segment is whole again and as long as its good records."""
    path = new_segment(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 100)
    torn = scan_segment(path)
    list(torn)
    assert torn.torn is not None

    cut_tail(path, torn.torn)

    assert path.read_bytes() == whole
    again = scan_segment(path)
    list(again)
    assert again.torn is None


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """write_whole leaves the new bytes and nothing beside them."""
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")

    write_whole(path, [b"ne", b"w"])

    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_empty_file_is_not_an_empty_journal(tmp_path: Path) -> None:
    """A segment that lost all its bytes is damage, not a new world."""
    path = new_segment(tmp_path)
    path.write_bytes(b"")

    with pytest.raises(Exception, match="shorter than its header"):
        Scan(b"", str(path))
    with pytest.raises(Exception, match="shorter than its header"):
        scan_segment(path)
