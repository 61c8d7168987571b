"""The journal on disk: every input appended in one order, made durable in groups by one thread of its own.

    append (event loop, in memory) -> batch -> write, fdatasync (writer thread) -> durable_seq, waiters

The first write or sync that fails is final: what the disk holds afterwards is not known, so nothing is written or
acknowledged again (DESIGN R6). Source: DESIGN D8, D19, R1, R5.
"""

from __future__ import annotations

import asyncio
import gzip
import mmap
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import structlog

from engine.errors import JournalDamaged
from engine.journal import (
    CHAIN_START,
    Chain,
    RecordKind,
    Scan,
    Segments,
    Torn,
    chain_behind,
    encode,
    encode_batch,
    encode_segment,
)
from server.clock import Clock
from server.live.disk import write_all, write_whole
from server.live.errors import JournalFailed
from server.live.watermark import Called, Watermark
from server.live.workers import SYSTEM, Thread, Workers
from server.metrics import Metrics

SEGMENT_NAME = "journal-{:012d}.arj"
"""By the sequence of its first record."""
ARCHIVE_NAME = "archive"
"""Folder of the segments no start needs any more, compressed."""
GROUP_S = 0.002
"""Syncs begin at least this far apart: a lone record is synced at once, a flood in groups of two milliseconds."""
SEGMENT_BYTES_MAX = 64 << 20
"""Bytes of a segment after which the next mark ends it: it is packed and read as a whole."""
PENDING_BYTES_MAX = 64 << 20
"""Bytes that may wait for the disk before no more input is taken."""

log = structlog.get_logger("arena.journal")


class JournalFile(Protocol):
    """Where batches go. Each call may raise OSError, after which none follows but close."""

    def write(self, data: bytes) -> None:
        """Append all of data."""

    def sync(self) -> None:
        """Return when everything written survives a power loss."""

    def close(self) -> None:
        """Let go of the file."""


class DiskFile:
    """A file opened for appending."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, data: bytes) -> None:
        """Append all of data, in as many calls as the system needs."""
        write_all(self._descriptor, data)

    def sync(self) -> None:
        """Sync data and size, but not the times of the file."""
        # macOS has no fdatasync
        getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class SegmentStart(NamedTuple):
    """Where a segment begins. sequence: of its first record; chain: value over all records before."""

    sequence: int
    chain: bytes


class Journal:
    """Appends records and tells when they are durable. Everything but the writing happens on one event loop's thread.

    next_seq: of the first record to come; everything before it is durable. chain: running over all records so far.
    next_file: makes the file of a new segment, header and all, durably; called in the writer's thread.
    """

    def __init__(
        self,
        file: JournalFile,
        *,
        next_seq: int,
        chain: Chain,
        metrics: Metrics,
        clock: Clock,
        next_file: Callable[[SegmentStart], JournalFile],
        workers: Workers = SYSTEM,
    ) -> None:
        self.next_seq = next_seq
        self.chain = chain
        self._metrics = metrics
        self._durable = Watermark(next_seq - 1)
        self._reason: str | None = None
        self._counts = dict.fromkeys(RecordKind, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffer: list[bytes | SegmentStart] = []
        self._buffer_size = 0
        self._segment_size = 0
        self._buffer_last = next_seq - 1
        """The last sequence in the buffer, or before it."""
        self._lock = threading.Lock()
        self._writer = _Writer(file, next_file, next_seq - 1, clock, workers, self._take, self._report)

    @property
    def durable_seq(self) -> int:
        """The last record that is durable, as far as this thread was told."""
        return self._durable.value

    @property
    def failed(self) -> bool:
        """Whether a write or sync failed; nothing is taken any more."""
        return self._reason is not None

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the disk that no input should be taken; marks still are."""
        return self._buffer_size >= PENDING_BYTES_MAX

    @property
    def segment_is_full(self) -> bool:
        """Whether the segment should end with the next mark."""
        return self._segment_size >= SEGMENT_BYTES_MAX

    def start(self) -> None:
        """Bind the journal to the running event loop and begin to write; later calls change nothing."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._writer.start()

    def append(self, kind: RecordKind, payload: bytes, count: int = 1) -> int:
        """Take a record and return its sequence; it is durable once durable(sequence) returns.

        count: sequences it takes, from that one on; they are durable together.
        Raises JournalFailed after the disk failed.
        """
        if self._reason is not None:
            raise JournalFailed(self._reason)
        seq = self.next_seq
        self.next_seq = seq + count
        record = encode(seq, kind, payload)
        self.chain.add(record)
        self._segment_size += len(record)
        self._counts[kind] += 1
        with self._lock:
            self._buffer.append(record)
            self._buffer_size += len(record)
            self._buffer_last = seq + count - 1
        self._writer.wake()
        return seq

    def rotate(self) -> SegmentStart:
        """Let the segment end behind the last record appended; the next one begins a new segment. Return which."""
        start = SegmentStart(self.next_seq, self.chain.close())
        self._segment_size = 0
        with self._lock:
            self._buffer.append(start)
        return start

    async def durable(self, seq: int) -> None:
        """Return when the record and all before it are on disk. Raises JournalFailed when that will never be known."""
        await self._durable.reached(seq)

    def when_durable(self, seq: int, called: Called) -> None:
        """Have a function called when the record and all before it are on disk, or with JournalFailed."""
        self._durable.when_reached(seq, called)

    async def close(self) -> None:
        """Mark a clean stop, wait until it is durable, end the writer. Raises JournalFailed after the disk failed."""
        self.start()
        try:
            await self.durable(self.append(RecordKind.CLEAN_STOP, b""))
        finally:
            self._writer.stop()
            await asyncio.to_thread(self._writer.join)

    def _take(self) -> tuple[list[bytes | SegmentStart], int]:
        with self._lock:
            batch, self._buffer = self._buffer, []
            self._buffer_size = 0
            return batch, self._buffer_last

    def _report(self, done: _Batch | OSError) -> None:
        """Pass a batch's end from the writer to the event loop."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._settle, done)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.warning("journal_loop_closed")

    def _settle(self, done: _Batch | OSError) -> None:
        if isinstance(done, OSError):
            self._fail(done)
            return
        self._durable.rise(done.last)
        metrics = self._metrics
        metrics.journal_syncs.inc()
        metrics.journal_bytes.inc(done.size)
        metrics.journal_sync_seconds.observe(done.seconds)
        metrics.journal_durable_seq.set(done.last)
        for kind, count in self._counts.items():
            if count:
                metrics.journal_records.labels(kind.name.lower()).inc(count)
                self._counts[kind] = 0

    def _fail(self, cause: OSError) -> None:
        self._reason = f"the journal cannot be written: {cause}"
        log.error("journal_failed", error=str(cause), durable_seq=self.durable_seq)
        self._durable.fail(JournalFailed(self._reason))


class _Batch:
    """A batch that is durable."""

    __slots__ = ("last", "seconds", "size")

    def __init__(self, last: int, size: int, seconds: float) -> None:
        self.last = last
        self.size = size
        self.seconds = seconds


class _Writer:
    """Writes and syncs what was taken, batch by batch, until it is stopped or the disk fails."""

    def __init__(
        self,
        file: JournalFile,
        next_file: Callable[[SegmentStart], JournalFile],
        durable: int,
        clock: Clock,
        workers: Workers,
        take: Callable[[], tuple[list[bytes | SegmentStart], int]],
        report: Callable[[_Batch | OSError], None],
    ) -> None:
        self._file = file
        self._next_file = next_file
        self._durable = durable
        self._clock = clock
        self._workers = workers
        self._take = take
        self._report = report
        self._wanted = workers.event()
        self._stopping = False
        self._never = workers.event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = self._workers.thread("journal", self._run)

    def join(self) -> None:
        """Return when everything before stop() is written."""
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """Have the buffer looked at."""
        # asked first: setting an event that is set still takes its lock
        if not self._wanted.is_set():
            self._wanted.set()

    def stop(self) -> None:
        """End after what is in the buffer now."""
        self._stopping = True
        self._wanted.set()

    def _run(self) -> None:
        """Wait, gather, write, sync, tell."""
        began = self._clock.monotonic() - GROUP_S
        # whatever ends this thread but a stop: nobody may wait for it for ever
        failure: OSError | None = OSError("the thread that writes the journal ended")
        try:
            stopping = False
            while not stopping:
                self._wanted.wait()
                self._wanted.clear()
                stopping = self._stopping
                if (left := began + GROUP_S - self._clock.monotonic()) > 0:
                    self._never.wait(left)
                began = self._clock.monotonic()
                self._write(*self._take(), began)
            failure = None
        except OSError as error:
            failure = error
        finally:
            if failure is not None:
                self._report(failure)
            self._file.close()

    def _write(self, taken: list[bytes | SegmentStart], last: int, began: float) -> None:
        """Commit what was taken; a new segment is begun only when the one before is durable to its end.

        last: sequence of the last record taken.
        """
        records: list[bytes] = []
        for item in taken:
            if isinstance(item, bytes):
                records.append(item)
                continue
            if records:
                self._report(self._commit(records, item.sequence - 1, began))
                records, began = [], self._clock.monotonic()
            following = self._next_file(item)
            self._file.close()
            self._file = following
        if records:
            self._report(self._commit(records, last, began))

    def _commit(self, records: list[bytes], last: int, began: float) -> _Batch:
        data = b"".join([encode_batch(self._durable + 1, last, self._durable), *records])
        self._file.write(data)
        self._file.sync()
        self._durable = last
        return _Batch(last, len(data), self._clock.monotonic() - began)


def create_segment(folder: Path, start: SegmentStart, genesis: bytes | None = None) -> Path:
    """Write the beginning of a segment, all or nothing; return where. genesis: payload of a world's first record."""
    path = folder / SEGMENT_NAME.format(start.sequence)
    first = start.sequence
    records = [] if genesis is None else [encode_batch(first, first, 0), encode(first, RecordKind.GENESIS, genesis)]
    write_whole(path, [encode_segment(*start), *records])
    return path


FIRST = SegmentStart(1, CHAIN_START)
"""Where a world's first segment begins."""


def segment_paths(folder: Path) -> list[Path]:
    """Return the journal's segments in a data folder, oldest first, archived ones among them; none without a world."""
    found = {first_sequence(path): path for path in (folder / ARCHIVE_NAME).glob("journal-*.arj.gz")}
    # a segment that is being archived is in both places for a moment
    found |= {first_sequence(path): path for path in folder.glob("journal-*.arj")}
    return [found[sequence] for sequence in sorted(found)]


def read_segments(paths: Sequence[Path], first: int = 0) -> Segments:
    """Return the records of consecutive segments, from one on. Raises JournalDamaged when the first is no segment."""
    return Segments([partial(scan_segment, path) for path in paths], first)


def chain_before(scan: Scan, sequence: int) -> bytes | None:
    """Return the chain value before a record of a segment, None unless a mark or nothing of the segment is before it.

    Raises JournalDamaged for what is damaged before it.
    """
    if scan.first_sequence == sequence:
        return scan.first_chain
    for record in scan:
        if record.sequence == sequence - 1:
            return chain_behind(record) if record.kind is RecordKind.MARK else None
    return None


def segments_from(paths: Sequence[Path], sequence: int) -> list[Path]:
    """Return the segments that hold a record and what comes behind it; the first holds what is before it, or it."""
    holding = max((i for i, path in enumerate(paths) if first_sequence(path) <= sequence), default=0)
    return list(paths[holding:])


def first_sequence(path: Path) -> int:
    """Return the sequence of a segment's first record, by its name."""
    return int(path.name.removeprefix("journal-").split(".")[0])


def scan_segment(path: Path) -> Scan:
    """Return the records of a segment, read through a memory map that lives as long as they do, or from the archive.

    Raises JournalDamaged when it does not begin as a segment, or its archive cannot be unpacked.
    """
    with open(path, "rb") as file:
        return scan_opened(path, file, os.fstat(file.fileno()).st_size)


def scan_opened(path: Path, file: IO[bytes], size: int) -> Scan:
    """Return the records in the first bytes of a segment that is open, whatever its path holds by now.

    Raises JournalDamaged as scan_segment does.
    """
    if path.suffix == ".gz":
        file.seek(0)
        try:
            return Scan(gzip.decompress(file.read(size)), str(path))
        except (OSError, EOFError, zlib.error) as error:
            raise JournalDamaged(str(path), 0, f"cannot be unpacked: {error}") from error
    # an empty file cannot be mapped
    data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    return Scan(memoryview(data), str(path))


def append_record(path: Path, sequence: int, kind: RecordKind, payload: bytes) -> bytes:
    """Append a record to a segment that nobody writes, durably; return its bytes. sequence: of the record."""
    record = encode(sequence, kind, payload)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        write_all(descriptor, encode_batch(sequence, sequence, sequence - 1) + record)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return record


def cut_tail(path: Path, torn: Torn) -> None:
    """Cut a torn tail off a segment, durably, and say so. No Scan of it may be read afterwards."""
    lost = path.stat().st_size - torn.offset
    log.warning(
        "journal_tail_cut",
        path=str(path),
        offset=torn.offset,
        bytes_cut=lost,
        first_sequence_lost=torn.sequence,
        reason=torn.reason,
    )
    with open(path, "r+b") as file:
        file.truncate(torn.offset)
        os.fsync(file.fileno())
