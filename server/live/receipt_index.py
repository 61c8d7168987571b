"""Receipts that can no longer change, on disk: found by their key, with less than three bytes of memory each.

    settled receipts -> write_generation, in a thread -> adopt: a generation, sorted by key
    generations of one tier -> merged into one of the next, in another thread -> replaced

    file = receipts, 104 bytes each | starts u32 | remainders u16 | tail

A key is a keyed hash of 128 bits. Its first bits name a bucket, the next 16 are its remainder: in memory are, of each
generation, where the buckets start and the remainders of all its receipts, in the order of the receipts. A look-up
reads a bucket of about eight remainders, and the disk only for those that are equal: for a key that is not there in
one of 8,000 look-ups a generation. Every receipt carries a checksum that is looked at when it is read.
Source: DESIGN D23, R2; the tiers are those of log-structured merge trees (O'Neil et al. 1996).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from mmap import mmap
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from engine.receipt_table import RECEIPT, add_keys, find_candidates
from engine.siphash import hash_rows, key_words
from server.live.array_file import NotWhole
from server.live.disk import PAUSE_BYTES, remove, write_whole
from server.live.errors import ReceiptDamaged

Rows = NDArray[np.void]
Words = NDArray[np.uint64]
Pause = Callable[[int], None] | None

FOLDER_NAME = "receipts"
SUFFIX = ".arr"
FORMAT_VERSION = 1
TIERS = ((100_000, 4), (1_000_000, 8), (8_000_000, 4))
"""A generation of fewer receipts than the first number is of that tier; so many of a tier are merged into one."""
SHARE_ENDED = 0.875
"""Share of a generation's receipts that must be past their time before it is written anew without them."""
PART = 1 << 15
"""Receipts, about, that a merge has in memory at once: 3.4 MB, several times."""
_BUCKET = 8
_SLICE = 10_000
"""Receipts that are written between two pauses: a megabyte."""
_SAMPLED = 8
"""Of so many receipts one is asked when most of them end."""
_DIGEST_SIZE = 16
_MAGIC = b"ARENAR\r\n"
_TAIL = Struct("<8sIIQqq16s16s")
"""Magic, version, bits of a bucket's number, count, ends, mostly, digest of starts and remainders, of the tail."""
_CHECK_KEY = key_words(bytes(16))
_NO_PLACES, _NO_RECEIPTS = np.zeros(0, np.int64), np.zeros(0, RECEIPT)

log = structlog.get_logger("arena.receipts")


class Generation:
    """A file of receipts, and what of it is in memory. bits: of a bucket's number.

    ends: the last tick any of them is valid in; mostly: the last tick of the SHARE_ENDED that end first. remainders:
    two bytes for each of count receipts; more may follow.
    """

    def __init__(
        self,
        path: Path,
        bits: int,
        ends: int,
        mostly: int,
        starts: NDArray[np.uint32],
        remainders: bytes | mmap,
        count: int,
    ) -> None:
        self.path = path
        self.bits = bits
        self.ends = ends
        self.mostly = mostly
        self._starts = starts.astype(np.uint32)
        self._remainders = remainders
        self._remainders_array = np.frombuffer(remainders, np.uint16, count)
        # the type that the kernels are compiled for, wherever it comes from
        self._remainders_array.flags.writeable = False
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self._remainders_array)

    def __del__(self) -> None:
        # the file stays readable for whoever still has this, whatever becomes of its name
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @property
    def memory_bytes(self) -> int:
        """Bytes of it that are in memory."""
        return self._starts.nbytes + self._remainders_array.nbytes

    @property
    def tier(self) -> int:
        """The tier it is of."""
        return sum(len(self) >= size for size, _ in TIERS)

    def may_hold(self, high: int) -> bool:
        """Whether a key that begins with these 64 bits may be in it: for one key a tenth of the time get takes."""
        bucket = high >> (64 - self.bits)
        first, last = int(self._starts[bucket]), int(self._starts[bucket + 1])
        remainder = (high >> (48 - self.bits)) & 0xFFFF
        return self._remainders.find(remainder.to_bytes(2, "little"), 2 * first, 2 * last) >= 0

    def bounds(self, bits: int) -> NDArray[np.int64]:
        """Return where the receipts of each of 2^bits ranges of keys begin, and at last how many there are."""
        if bits <= self.bits:
            return self._starts[:: 1 << (self.bits - bits)].astype(np.int64)
        # few receipts for so many ranges
        ranges = np.arange(1, 1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
        inner = np.searchsorted(self.read(0, len(self))["high"], ranges)
        return np.concatenate([[0], inner, [len(self)]]).astype(np.int64)

    def get(self, keys: Words) -> tuple[NDArray[np.int64], Rows]:
        """Return which of keys, shape (n, 2), are in it, and their receipts. Raises ReceiptDamaged."""
        at, places = np.empty((2, len(keys)), np.int64)
        count = find_candidates(self._starts, self._remainders_array, self.bits, keys, at, places)
        if not count:
            # so it is nearly always
            return _NO_PLACES, _NO_RECEIPTS
        at, places = at[:count], places[:count]
        found: list[NDArray[np.int64]] = []
        receipts: list[Rows] = []
        while len(at):
            rows = self._checked(b"".join(self._bytes(place, place + 1) for place in places.tolist()), len(at))
            is_it = (rows["high"] == keys[at, 0]) & (rows["low"] == keys[at, 1])
            if is_it.any():
                found.append(at[is_it])
                receipts.append(rows[is_it])
            # the next receipt may have the same remainder
            at, places = at[~is_it], places[~is_it] + 1
            goes_on = places < len(self)
            at, places = at[goes_on], places[goes_on]
            goes_on = self._remainders_array[places] == self._remainders_array[places - 1]
            at, places = at[goes_on], places[goes_on]
        # two arrays of receipts take as long to join as a look through a generation
        return (np.concatenate(found), np.concatenate(receipts)) if found else (_NO_PLACES, _NO_RECEIPTS)

    def read(self, first: int, last: int) -> Rows:
        """Return receipts first..last - 1. Raises ReceiptDamaged."""
        return self._checked(self._bytes(first, last), last - first)

    def _bytes(self, first: int, last: int) -> bytes:
        size, offset = (last - first) * RECEIPT.itemsize, first * RECEIPT.itemsize
        try:
            data = os.pread(self._descriptor, size, offset)
            # the system gives less than it is asked for when that is a great deal
            while len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise self._damaged(str(error)) from error
        return data

    def _checked(self, data: bytes, count: int) -> Rows:
        rows = np.frombuffer(data, RECEIPT, len(data) // RECEIPT.itemsize)
        if len(rows) != count or not np.array_equal(rows["check"], checks(rows)):
            raise self._damaged("the checksum of a receipt is wrong")
        return rows

    def _damaged(self, reason: str) -> ReceiptDamaged:
        log.error("receipt_damaged", path=str(self.path), reason=reason)
        return ReceiptDamaged(f"{self.path}: {reason}")


class Merge(NamedTuple):
    """Generations that are to become one. oldest: receipts that ended before it are left out."""

    generations: tuple[Generation, ...]
    oldest: int


class ReceiptIndex:
    """All generations. For one event loop's thread; nothing here writes to the disk."""

    def __init__(self) -> None:
        self._generations: list[Generation] = []
        self._retired: list[tuple[Path, int]] = []
        self._merging: tuple[Generation, ...] = ()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def generations(self) -> tuple[Generation, ...]:
        """All there are, the newest last."""
        return tuple(self._generations)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the index takes in memory."""
        return sum(one.memory_bytes for one in self._generations)

    def get(self, keys: Words, oldest: int) -> tuple[NDArray[np.int64], Rows]:
        """Return which of keys, shape (n, 2), have a receipt that ended at oldest or later, and these receipts.

        Raises ReceiptDamaged when it cannot be told.
        """
        found, rows = _NO_PLACES, _NO_RECEIPTS
        likely: Iterable[Generation] = reversed(self._generations)
        if len(keys) == 1:
            high = int(keys[0, 0])
            likely = (one for one in likely if one.may_hold(high))
        for generation in likely:
            at, got = generation.get(keys)
            if len(at):
                is_kept = got["ends"] >= oldest
                found, rows = np.concatenate([found, at[is_kept]]), np.concatenate([rows, got[is_kept]])
        return found, rows

    def adopt(self, generation: Generation | None) -> None:
        """Take in receipts that were written; None: there were none."""
        if generation is not None:
            self._generations.append(generation)
            self._count += len(generation)

    def to_merge(self, oldest: int) -> Merge | None:
        """Return what should be merged now, None when nothing should, or when something is being merged."""
        if self._merging:
            return None
        chosen: tuple[Generation, ...] = ()
        for tier, (_, count) in enumerate(TIERS):
            of_tier = [one for one in self._generations if one.tier == tier]
            if len(of_tier) >= count:
                chosen = tuple(of_tier[:count])
                break
        else:
            chosen = tuple(one for one in self._generations if one.mostly < oldest <= one.ends)[:1]
        self._merging = chosen
        return Merge(chosen, oldest) if chosen else None

    def replace(self, merged: Generation | None) -> None:
        """Take in what to_merge's generations became; None: nothing of them was left."""
        first = next((i for i, one in enumerate(self._generations) if one in self._merging), 0)
        self._retired += [(one.path, one.ends) for one in self._generations if one in self._merging]
        self._generations = [one for one in self._generations if one not in self._merging]
        if merged is not None:
            # where the oldest of them was: of two receipts under one key the newer is looked at first
            self._generations.insert(first, merged)
        self._merging = ()
        self._count = sum(map(len, self._generations))

    def leave(self) -> None:
        """Take in that to_merge's generations could not be merged: they stay."""
        self._merging = ()

    def forget(self, oldest: int) -> None:
        """Let go of generations whose receipts all ended before oldest."""
        for one in [one for one in self._generations if one.ends < oldest and one not in self._merging]:
            self._generations.remove(one)
            self._retired.append((one.path, one.ends))
            self._count -= len(one)

    def take_retired(self) -> list[tuple[Path, int]]:
        """Return the files that are not needed here any more, each with the last tick of its receipts' validity."""
        retired, self._retired = self._retired, []
        return retired

    def open(self, paths: Iterable[Path]) -> None:
        """Read the generations of a snapshot. Raises NotWhole, OSError when one cannot be used."""
        for path in paths:
            self.adopt(open_generation(path))


def free_path(folder: Path, tick: int) -> Path:
    """Return where a generation of a tick may be written: a name that no file has."""
    number = 0
    while (path := folder / f"receipts-{tick:012d}-{number}{SUFFIX}").exists():
        number += 1
    return path


def write_generation(folder: Path, tick: int, rows: Rows, pause: Pause = None) -> Generation | None:
    """Write settled receipts, in any order, to a file and return it opened; None when there are none."""
    if not len(rows):
        return None
    return _write(folder, tick, len(rows), iter([_sorted(rows)]), pause)


def merge(folder: Path, tick: int, wanted: Merge, pause: Pause = None) -> Generation | None:
    """Write generations into one, without what is past its time; None when nothing is left.

    Raises ReceiptDamaged, OSError: then nothing has changed.
    """
    return _write(folder, tick, sum(map(len, wanted.generations)), _parts(wanted), pause)


def open_generation(path: Path) -> Generation:
    """Read what belongs into memory of a file. Raises NotWhole, OSError."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL.size))
        tail = file.read()
        if len(tail) < _TAIL.size or not tail.startswith(_MAGIC):
            raise NotWhole("not a file of receipts")
        _, version, bits, count, _, _, digest, check = _TAIL.unpack(tail)
        if _digest(tail[: -len(check)]) != check:
            raise NotWhole("damaged: the checksum of its tail is wrong")
        behind = 4 * ((1 << bits) + 1) + 2 * count
        if version != FORMAT_VERSION:
            raise NotWhole(f"format version {version}, this release reads {FORMAT_VERSION}")
        if size != count * RECEIPT.itemsize + behind + _TAIL.size:
            raise NotWhole("damaged: it has not the size it names")
        file.seek(count * RECEIPT.itemsize)
        body = file.read(behind)
    if _digest(body) != digest:
        raise NotWhole("damaged: its bytes do not have the checksum it names")
    starts = np.frombuffer(body, "<u4", (1 << bits) + 1)
    return _generation(path, tail, starts, body[starts.nbytes :])


def warm() -> None:
    """Load or compile the kernels of the index."""
    rows = np.zeros(1, RECEIPT)
    shape = _Shape(8)
    shape.add(_sorted(rows))
    starts = np.cumsum(shape.starts, dtype=np.uint32)
    # what is read from a file cannot be written to, which makes it another type to the compiler
    remainders = np.frombuffer(bytes(16), np.uint16)
    at, places = np.empty((2, 1), np.int64)
    find_candidates(starts, remainders, shape.bits, np.zeros((1, 2), np.uint64), at, places)


def checks(rows: Rows) -> NDArray[np.uint32]:
    """Return the checksum of each receipt."""
    words = np.ascontiguousarray(rows).view(np.uint64).reshape(-1, RECEIPT.itemsize // 8).copy()
    # the last word holds the checksum itself
    words[:, -1] &= np.uint64(0xFFFFFFFF)
    hashes = np.empty((len(rows), 2), np.uint64)
    hash_rows(_CHECK_KEY, words, hashes)
    return (hashes[:, 0] & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def _sorted(rows: Rows) -> Rows:
    rows = rows[np.argsort(rows["high"], kind="stable")]
    rows["check"] = checks(rows)
    return rows


def _parts(wanted: Merge) -> Iterator[Rows]:
    """Yield what is left of generations, sorted, a range of keys at a time."""
    bits = (sum(map(len, wanted.generations)) // PART).bit_length()
    # a range of keys is a range of receipts in each generation
    bounds = [one.bounds(bits) for one in wanted.generations]
    for part in range(1 << bits):
        rows = np.concatenate(
            [one.read(*at[part : part + 2].tolist()) for one, at in zip(wanted.generations, bounds, strict=True)]
        )
        rows = rows[rows["ends"] >= wanted.oldest]
        yield rows[np.argsort(rows["high"], kind="stable")]


class _Shape:
    """What is known of a generation while its receipts are written. most: an upper bound of how many they are."""

    def __init__(self, most: int) -> None:
        self.bits = max(1, (most // _BUCKET).bit_length() - 1)
        self.count = 0
        self.starts = np.zeros((1 << self.bits) + 1, np.uint32)
        # memory is taken where it is written, and handed on as it is: of millions of receipts two copies, made with the
        # interpreter's lock, held the event loop up for 80 ms (loadtest.crowd flood)
        self._memory = mmap(-1, max(2, 2 * most))
        self._remainders = np.frombuffer(self._memory, np.uint16)
        self._ends: list[NDArray[np.int64]] = []
        self._last = 0

    def add(self, rows: Rows) -> None:
        """Take in the next receipts."""
        add_keys(rows, self.count, self.starts, self._remainders)
        self.count += len(rows)
        if len(rows):
            # copied: a view would keep all receipts of a merge in memory to its end
            self._ends.append(rows["ends"][::_SAMPLED].copy())
            self._last = max(self._last, int(rows["ends"].max()))

    def generation(self, path: Path, tail: bytes) -> Generation:
        """Return the generation whose file ends with what `finished` has returned."""
        return _generation(path, tail, np.cumsum(self.starts, dtype=np.uint32), self._memory)

    def finished(self) -> tuple[memoryview, memoryview, bytes]:
        """Return what stands behind the receipts: starts, remainders, the tail."""
        starts = np.cumsum(self.starts, dtype="<u4").view(np.uint8).data
        remainders = self._remainders[: self.count].astype("<u2", copy=False).view(np.uint8).data
        ends = np.sort(np.concatenate(self._ends))
        mostly = int(ends[int(SHARE_ENDED * (len(ends) - 1))])
        digest = _digest(starts, remainders)
        tail = _TAIL.pack(
            _MAGIC, FORMAT_VERSION, self.bits, self.count, self._last, mostly, digest, bytes(_DIGEST_SIZE)
        )[:-_DIGEST_SIZE]
        return starts, remainders, tail + _digest(tail)


def _write(folder: Path, tick: int, most: int, parts: Iterator[Rows], pause: Pause) -> Generation | None:
    """Write sorted receipts part by part. most: an upper bound of how many they are."""
    shape = _Shape(most)
    tail = b""

    def body() -> Iterator[bytes | memoryview]:
        nonlocal tail
        for rows in parts:
            shape.add(rows)
            for begin in range(0, len(rows), _SLICE):
                yield np.ascontiguousarray(rows[begin : begin + _SLICE]).view(np.uint8).data
        if shape.count:
            starts, remainders, tail = shape.finished()
            for part in (starts, remainders):
                for begin in range(0, len(part), PAUSE_BYTES):
                    yield part[begin : begin + PAUSE_BYTES]
            yield tail

    folder.mkdir(mode=0o700, exist_ok=True)
    path = free_path(folder, tick)
    write_whole(path, body(), pause)
    if not shape.count:
        remove(path)
        return None
    return shape.generation(path, tail)


def _generation(path: Path, tail: bytes, starts: NDArray[np.uint32], remainders: bytes | mmap) -> Generation:
    """Return a generation from what stands behind its receipts."""
    _, _, bits, count, ends, mostly, _, _ = _TAIL.unpack(tail)
    return Generation(path, bits, ends, mostly, starts, remainders, count)


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    for part in parts:
        digest.update(part)
    return digest.digest()
