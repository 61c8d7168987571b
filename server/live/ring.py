"""Rows of whole numbers in a ring in a file, read through a memory map: the past that a restart finds again.

file = page of 4,096 bytes (magic, identity as JSON, marks) | rows, slot = (tick / step) mod capacity

The file is written with pwrite and mapped for reading only: a full disk is an error to handle and not a signal, and a
page on its way to the disk stops nobody who writes. Rows come before the marks that count them, so that a process may
be killed at any moment; rows that were not synced are held to their checksums when the file is opened, because a power
cut keeps any of them and loses any other. Source: specification 004, memory-mapped files for large datasets.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import structlog
from numpy.typing import NDArray

from server.live.series import CHECKSUM, TICK, Rows

MAGIC = b"ARENAH\r\n"
FORMAT = 1
PAGE = 4_096
GROW_ROWS = 64
"""A file grows by so many rows, until it has them all: a young world's is small."""
_MARKS_AT = 3_072
_FRAME = struct.Struct("<II")
_MARKS = struct.Struct("<qqq")
_CRC = struct.Struct("<I")

log = structlog.get_logger("arena.history")


class Unusable(Exception):
    """The file does not hold what is asked for; its message says why."""


class Ring:
    """The newest `capacity` rows, one every `step` ticks, in memory. A row is found under its tick or not at all.

    first, newest: ticks of the oldest and newest row; first is above newest while there is none. sparse: whether rows
    may be missing in between; otherwise a gap starts the ring over.
    """

    def __init__(self, step: int, capacity: int, width: int, *, sparse: bool = False) -> None:
        self.step, self.capacity, self.width, self.sparse = step, capacity, width, sparse
        self.first, self.newest = 0, -step
        self.table = self._make_table()

    def extend(self, rows: Rows) -> None:
        """Add rows of consecutive steps, shape (n, width), n <= capacity; those from their first tick on are replaced.

        Raises OSError, after which the ring is as it was but for the rows it was about to replace.
        """
        tick = int(rows[0, TICK])
        if tick <= self.newest:
            self.cut(tick)
        if self.first > self.newest or (tick != self.newest + self.step and not self.sparse):
            self.first, self.newest = tick, tick - self.step
        newest = int(rows[-1, TICK])
        # nobody may look at what is about to be overwritten
        self.first = max(self.first, newest - (self.capacity - 1) * self.step)
        for row in rows:
            row[CHECKSUM] = checksum(row)
        for slot, part in self._parts(rows):
            self._write(slot, part)
        self.newest = newest
        self._mark()

    def cut(self, tick: int) -> None:
        """Forget the rows from tick on."""
        self.newest = min(self.newest, tick - self.step)
        self._mark()

    def is_whole(self, tick: int) -> bool:
        """Say whether the row of a tick stands there with its checksum."""
        row = self.pick(np.array([tick]), slice(None))[0]
        return bool(row[TICK] == tick and row[CHECKSUM] == checksum(row))

    def found(self, ticks: Rows) -> NDArray[np.bool_]:
        """Return for each tick (a multiple of step) whether its row is there."""
        there: NDArray[np.bool_] = (ticks >= self.first) & (ticks <= self.newest)
        there[there] = self.pick(ticks[there], TICK) == ticks[there]
        return there

    def pick(self, ticks: Rows, place: int | slice) -> Rows:
        """Return one column, or some, of what stands where the rows of ticks belong; zeros where nothing stands."""
        table, slots = self.table, self.slots(ticks)
        if not len(slots) or int(slots.max()) < len(table):
            values: Rows = table[slots, place]
            return values
        padded: Rows = np.zeros((len(slots), self.width), np.int64)[:, place]
        padded[slots < len(table)] = table[slots[slots < len(table)], place]
        return padded

    def slots(self, ticks: Rows) -> Rows:
        """Return where the rows of ticks stand in the table."""
        return (ticks // self.step) % self.capacity

    def parts(self, tick: int, count: int) -> Iterator[Rows]:
        """Yield what stands at count steps from tick on, all of them kept, as slices of the table: one or two."""
        slot = tick // self.step % self.capacity
        before_end = min(count, self.capacity - slot)
        yield self.table[slot : slot + before_end]
        if count > before_end:
            yield self.table[: count - before_end]

    def read(self, tick: int, count: int) -> Rows:
        """Return a copy of the rows of count steps from tick on, whatever stands in them. Raises OSError."""
        return self.pick(np.arange(tick, tick + count * self.step, self.step), slice(None))

    def sync(self) -> None:
        """Return when everything that was added survives a power cut. Raises OSError."""

    def close(self) -> None:
        """Sync, and add nothing from here on. Raises OSError."""

    def _make_table(self) -> Rows:
        # zeros are not touched, so memory is taken as ticks come in
        return np.zeros((self.capacity, self.width), np.int64)

    def _write(self, slot: int, rows: Rows) -> None:
        self.table[slot : slot + len(rows)] = rows

    def _mark(self) -> None:
        """Count what was written."""

    def _parts(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Cut rows where the ring ends."""
        slot = int(rows[0, TICK]) // self.step % self.capacity
        before_end = self.capacity - slot
        yield slot, rows[:before_end]
        if len(rows) > before_end:
            yield 0, rows[before_end:]


class FileRing(Ring):
    """A ring in a file. identity: what its rows are; a file of another one is not read. Opened by open_ring."""

    def __init__(
        self,
        descriptor: int,
        identity: Mapping[str, Any],
        step: int,
        capacity: int,
        width: int,
        *,
        sparse: bool,
    ) -> None:
        self._descriptor = descriptor
        self.identity = dict(identity)
        self._synced = -step
        self._mapped: mmap.mmap | None = None
        super().__init__(step, capacity, width, sparse=sparse)

    def read(self, tick: int, count: int) -> Rows:
        """Return a copy of the rows of count steps from tick on, read past the map: it leaves no pages behind."""
        slot = tick // self.step % self.capacity
        before_end = min(count, self.capacity - slot)
        parts = [self._read(slot, before_end)]
        if count > before_end:
            parts.append(self._read(0, count - before_end))
        return np.concatenate(parts)

    def sync(self) -> None:
        """Return when everything that was added survives a power cut. Raises OSError."""
        getattr(os, "fdatasync", os.fsync)(self._descriptor)
        self._synced = self.newest
        self._mark()
        # what was looked at stays in the system's cache but no longer counts as ours
        if self._mapped is not None:
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Sync, and add nothing from here on; what is mapped stays readable. Raises OSError."""
        if self._descriptor >= 0:
            try:
                self.sync()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def begin(self) -> None:
        """Write the first page of a new file."""
        described = _described(self.identity, self.step, self.width) | {"capacity": self.capacity}
        text = json.dumps(described, sort_keys=True).encode()
        head = MAGIC + _FRAME.pack(len(text), crc32(text)) + text
        _write_at(self._descriptor, head.ljust(PAGE, b"\0"), 0)
        self._mark()

    def recover(self) -> int:
        """Take up what the file holds and return how many rows it lost. Raises Unusable."""
        page = os.pread(self._descriptor, PAGE, 0)
        marks = page[_MARKS_AT : _MARKS_AT + _MARKS.size]
        if _CRC.unpack_from(page, _MARKS_AT + _MARKS.size)[0] != crc32(marks):
            raise Unusable("its marks are damaged")
        first, newest, self._synced = _MARKS.unpack(marks)
        self.first = first
        # what was synced is whole; behind it the power may have kept some rows and lost others
        whole = max(min(self._synced, newest), first - self.step)
        while whole < newest and self.is_whole(whole + self.step):
            whole += self.step
        self.newest = whole
        return int((newest - whole) // self.step)

    def _make_table(self) -> Rows:
        """Map what there is of the file."""
        rows = (os.fstat(self._descriptor).st_size - PAGE) // (self.width * 8)
        if rows <= 0:
            return np.zeros((0, self.width), np.int64)
        self._mapped = mmap.mmap(self._descriptor, PAGE + rows * self.width * 8, access=mmap.ACCESS_READ)
        table = np.frombuffer(self._mapped, np.dtype("<i8"), rows * self.width, PAGE)
        return table.reshape(rows, self.width)

    def _grow(self, rows: int) -> None:
        """Let the file have room for so many rows at least; who looks at the old map may go on."""
        rows = min(self.capacity, -(-rows // GROW_ROWS) * GROW_ROWS)
        # no blocks are taken until rows come; a hole reads as zeros, which is no row
        os.ftruncate(self._descriptor, PAGE + rows * self.width * 8)
        self.table = self._make_table()

    def _read(self, slot: int, count: int) -> Rows:
        rows = np.zeros((count, self.width), np.dtype("<i8"))
        # behind the end of the file nothing is read, and zeros are no row
        os.preadv(self._descriptor, [rows.data.cast("B")], PAGE + slot * self.width * 8)
        return rows

    def _write(self, slot: int, rows: Rows) -> None:
        if slot + len(rows) > len(self.table):
            self._grow(slot + len(rows))
        data = np.ascontiguousarray(rows, "<i8").data.cast("B")
        _write_at(self._descriptor, data, PAGE + slot * self.width * 8)

    def _mark(self) -> None:
        # only what stands in the file counts as synced
        self._synced = min(self._synced, self.newest)
        marks = _MARKS.pack(self.first, self.newest, self._synced)
        _write_at(self._descriptor, marks + _CRC.pack(crc32(marks)), _MARKS_AT)


def open_ring(
    path: Path, identity: Mapping[str, Any], step: int, capacity: int, width: int, *, sparse: bool = False
) -> FileRing:
    """Return the ring in a file: what it holds where it fits, begun anew where it does not, which the log says.

    What a ring of another capacity holds is carried over. Raises OSError.
    """
    held: FileRing | None = None
    if path.exists():
        try:
            held = _reopened(path, identity, step, width, sparse=sparse)
        except Unusable as error:
            log.warning("history_rebuilt", path=str(path), reason=str(error))
    if held is not None and held.capacity == capacity:
        return held
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    ring = FileRing(descriptor, identity, step, capacity, width, sparse=sparse)
    ring.begin()
    if held is not None:
        log.info("history_resized", path=str(path), rows_before=held.capacity, rows=capacity)
        _carry_over(held, ring)
        held.close()
    os.replace(temporary, path)
    return ring


def checksum(row: Rows) -> int:
    """Return the CRC-32 of a row, its own column left out."""
    return crc32(row[CHECKSUM + 1 :].data, crc32(row[:CHECKSUM].data))


def _reopened(path: Path, identity: Mapping[str, Any], step: int, width: int, *, sparse: bool) -> FileRing:
    """Return the ring that a file holds, of whatever capacity. Raises Unusable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        capacity = _read_capacity(os.pread(descriptor, PAGE, 0), identity, step, width)
        ring = FileRing(descriptor, identity, step, capacity, width, sparse=sparse)
        if lost := ring.recover():
            log.warning("history_rows_cut", path=str(path), rows=lost, reason="their checksums are wrong")
    except BaseException:
        os.close(descriptor)
        raise
    return ring


def _read_capacity(page: bytes, identity: Mapping[str, Any], step: int, width: int) -> int:
    """Return the capacity a first page tells of. Raises Unusable when the rows are not those asked for."""
    if len(page) < PAGE or page[: len(MAGIC)] != MAGIC:
        raise Unusable("not a ring of rows")
    length, crc = _FRAME.unpack_from(page, len(MAGIC))
    begin = len(MAGIC) + _FRAME.size
    text = page[begin : begin + length]
    if crc32(text) != crc:
        raise Unusable("its first page is damaged")
    held = json.loads(text)
    capacity: int = held.pop("capacity")
    for name, value in _described(identity, step, width).items():
        if held.get(name) != value:
            raise Unusable(f"it has {name} {held.get(name)!r}, the world has {value!r}")
    return capacity


def _described(identity: Mapping[str, Any], step: int, width: int) -> dict[str, Any]:
    return {"format": FORMAT, **identity, "step": step, "width": width}


def _carry_over(held: Ring, ring: Ring) -> None:
    """Copy the newest rows that both have room for."""
    first = max(held.first, held.newest - (ring.capacity - 1) * ring.step)
    for tick in range(first, held.newest + 1, ring.step):
        row = held.read(tick, 1)
        if row[0, TICK] == tick:
            ring.extend(row)


def _write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
