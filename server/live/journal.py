"""The journal on disk: every input appended in one order, made durable in groups by one thread of its own.

    append (event loop, in memory) -> batch -> write, fdatasync (writer thread) -> durable_seq, waiters

The first write or sync that fails is final: what the disk holds afterwards is not known, so nothing is written or
acknowledged again (DESIGN R6). Source: DESIGN D8, D19, R1, R5.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import structlog

from engine.journal import Chain, RecordKind, Scan, Torn, encode, encode_batch, encode_segment
from server.clock import Clock
from server.live.errors import JournalFailed
from server.live.watermark import Watermark
from server.live.workers import SYSTEM, Thread, Workers
from server.metrics import Metrics

SEGMENT_NAME = "journal-{:08d}.arj"
GROUP_S = 0.002
"""Syncs begin at least this far apart: a lone record is synced at once, a flood in groups of two milliseconds."""
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
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        """Sync data and size, but not the times of the file."""
        # macOS has no fdatasync
        getattr(os, "fdatasync", os.fsync)(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


class Journal:
    """Appends records and tells when they are durable. Everything but the writing happens on one event loop's thread.

    next_seq: of the first record to come; everything before it is durable. chain: running over all records so far.
    """

    def __init__(
        self,
        file: JournalFile,
        *,
        next_seq: int,
        chain: Chain,
        metrics: Metrics,
        clock: Clock,
        workers: Workers = SYSTEM,
    ) -> None:
        self.next_seq = next_seq
        self.chain = chain
        self._metrics = metrics
        self._durable = Watermark(next_seq - 1)
        self._reason: str | None = None
        self._counts = dict.fromkeys(RecordKind, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffer: list[bytes] = []
        self._buffer_size = 0
        self._lock = threading.Lock()
        self._writer = _Writer(file, next_seq - 1, clock, workers, self._take, self._report)

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

    def start(self) -> None:
        """Bind the journal to the running event loop and begin to write; later calls change nothing."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._writer.start()

    def append(self, kind: RecordKind, payload: bytes) -> int:
        """Take a record and return its sequence; it is durable once durable(sequence) returns.

        Raises JournalFailed after the disk failed.
        """
        if self._reason is not None:
            raise JournalFailed(self._reason)
        seq = self.next_seq
        self.next_seq = seq + 1
        record = encode(seq, kind, payload)
        self.chain.add(record)
        self._counts[kind] += 1
        with self._lock:
            self._buffer.append(record)
            self._buffer_size += len(record)
        self._writer.wake()
        return seq

    async def durable(self, seq: int) -> None:
        """Return when the record and all before it are on disk. Raises JournalFailed when that will never be known."""
        await self._durable.reached(seq)

    async def close(self) -> None:
        """Mark a clean stop, wait until it is durable, end the writer. Raises JournalFailed after the disk failed."""
        self.start()
        try:
            await self.durable(self.append(RecordKind.CLEAN_STOP, b""))
        finally:
            self._writer.stop()
            await asyncio.to_thread(self._writer.join)

    def _take(self) -> list[bytes]:
        with self._lock:
            batch, self._buffer = self._buffer, []
            self._buffer_size = 0
        return batch

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
        durable: int,
        clock: Clock,
        workers: Workers,
        take: Callable[[], list[bytes]],
        report: Callable[[_Batch | OSError], None],
    ) -> None:
        self._file = file
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
                if records := self._take():
                    self._report(self._commit(records, began))
            failure = None
        except OSError as error:
            failure = error
        finally:
            if failure is not None:
                self._report(failure)
            self._file.close()

    def _commit(self, records: list[bytes], began: float) -> _Batch:
        last = self._durable + len(records)
        data = b"".join([encode_batch(self._durable + 1, last, self._durable), *records])
        self._file.write(data)
        self._file.sync()
        self._durable = last
        return _Batch(last, len(data), self._clock.monotonic() - began)


def create_segment(folder: Path, genesis: bytes) -> Path:
    """Write the first segment of a new world, all or nothing; return where. genesis: payload of its first record."""
    record = encode(1, RecordKind.GENESIS, genesis)
    path = folder / SEGMENT_NAME.format(1)
    write_whole(path, [encode_segment(1), encode_batch(1, 1, 0), record])
    return path


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file that is there as a whole or not at all, whenever the power goes: temporary file, sync, rename."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def segment_path(folder: Path) -> Path | None:
    """Return the journal's segment in a data folder, None when there is no world in it."""
    path = folder / SEGMENT_NAME.format(1)
    return path if path.exists() else None


def scan_segment(path: Path) -> Scan:
    """Return the records of a segment, read through a memory map that lives as long as they do.

    Raises JournalDamaged when it does not begin as a segment.
    """
    with open(path, "rb") as file:
        # an empty file cannot be mapped
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
    return Scan(memoryview(data), str(path))


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
