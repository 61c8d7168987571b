"""Receipts that can no longer change, on disk: found by their key, with a few bytes of memory each.

    settled receipts -> wait_for (in memory) -> write, in a thread -> adopt: a generation, sorted by key, mapped

Every generation is written once and removed when its last receipt is past its time. A filter in memory (Bloom 1970,
one 64-bit word a key, as in Putze, Sanders, Singler 2007) answers for all generations at once that a key is in none of
them: of 1,000 keys that are not there about 20 are looked for all the same. Source: DESIGN D23, R2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from server.live.array_file import read_arrays, write_arrays

KEY_SIZE = 16
PACKED_MAX = 101
"""Bytes of the longest packed receipt; shorter ones are filled up."""
FOLDER_NAME = "receipts"
_LENGTH = Struct("<B")
_ENDS = Struct("<q")
_ROW_SIZE = KEY_SIZE + _LENGTH.size + PACKED_MAX
_FILTER_BITS_A_KEY = 16
_FILTER_WORDS_MIN = 1 << 10


@dataclass(frozen=True)
class Generation:
    """A file of receipts. ends: the last tick any of them is valid in; high: first 8 bytes of the keys, ascending."""

    path: Path
    ends: int
    high: NDArray[np.uint64]
    rows: NDArray[np.uint8]

    def get(self, key: bytes) -> bytes | None:
        """Return the packed receipt under a key."""
        high = np.uint64(int.from_bytes(key[:8], "big"))
        i = int(np.searchsorted(self.high, high))
        while i < len(self.high) and self.high[i] == high:
            row: bytes = self.rows[i].tobytes()
            if row[:KEY_SIZE] == key:
                return row[KEY_SIZE + 1 : KEY_SIZE + 1 + row[KEY_SIZE]]
            i += 1
        return None


class ReceiptIndex:
    """All generations, and the receipts that wait to become one. For one event loop's thread."""

    def __init__(self) -> None:
        self._generations: list[Generation] = []
        self._waiting: list[dict[bytes, bytes]] = []
        """What is not on disk yet, the next to be written first."""
        self._filter = _Filter(0)
        self._count = 0

    def __len__(self) -> int:
        return self._count + self.waiting

    @property
    def waiting(self) -> int:
        """Receipts that are not on disk yet."""
        return sum(map(len, self._waiting))

    @property
    def generations(self) -> tuple[Generation, ...]:
        """All that are on disk; the first ends first."""
        return tuple(self._generations)

    def get(self, key: bytes) -> bytes | None:
        """Return the packed receipt under a key of 16 bytes, None when there is none."""
        for settled in self._waiting:
            if (packed := settled.get(key)) is not None:
                return packed
        if not self._count or not self._filter.may_hold(key):
            return None
        for generation in reversed(self._generations):
            if (packed := generation.get(key)) is not None:
                return packed
        return None

    def wait_for(self, settled: dict[bytes, bytes]) -> None:
        """Keep receipts in memory until adopt is given their generation; generations come in the same order."""
        self._waiting.append(settled)

    def adopt(self, generation: Generation | None) -> None:
        """Take in the generation of the receipts that waited longest; None: there were none to write."""
        del self._waiting[0]
        if generation is not None:
            self._add(generation)

    def forget(self, tick: int) -> None:
        """Let go of generations whose receipts all ended before tick; their files are unlinked."""
        if not self._generations or self._generations[0].ends >= tick:
            return
        gone = self._generations.pop(0)
        self._count -= len(gone.high)
        # what is left of it in the filter only makes a look-up in vain likelier, until the next one is made
        gone.path.unlink(missing_ok=True)

    def take_back(self) -> dict[bytes, bytes]:
        """Return the receipts that waited longest; they could not be written."""
        return self._waiting.pop(0)

    def open(self, paths: Iterable[Path]) -> None:
        """Read the generations of a snapshot. Raises NotWhole, OSError when one cannot be used."""
        for path in paths:
            self._add(_opened(path))

    def _add(self, generation: Generation) -> None:
        self._generations.append(generation)
        # forget() looks at the first only
        self._generations.sort(key=lambda one: one.ends)
        self._count += len(generation.high)
        if self._filter.is_full(len(generation.high)):
            self._filter = _Filter(2 * self._count)
            for one in self._generations:
                self._filter.add(one.high)
        else:
            self._filter.add(generation.high)


def write_generation(
    path: Path, settled: Mapping[bytes, bytes], pause: Callable[[int], None] | None = None
) -> Generation | None:
    """Write settled receipts (key -> packed) to a file and return it opened; None when there are none."""
    if not settled:
        return None
    path.parent.mkdir(mode=0o700, exist_ok=True)
    parts = [
        key + _LENGTH.pack(len(packed)) + packed.ljust(PACKED_MAX, b"\0") for key, packed in sorted(settled.items())
    ]
    rows = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, _ROW_SIZE)
    ends = max(_ENDS.unpack_from(packed)[0] for packed in settled.values())
    write_arrays(path, {"ends": ends}, [("high", _high(rows)), ("rows", rows)], pause)
    return _opened(path)


def _opened(path: Path) -> Generation:
    header, arrays = read_arrays(path)
    return Generation(path, int(header["ends"]), arrays["high"], arrays["rows"])


def _high(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(rows[:, :8]).view(">u8").ravel().astype(np.uint64)


class _Filter:
    """Whether a key may be among those added: never wrong when it says no. capacity: keys."""

    def __init__(self, capacity: int) -> None:
        words = _FILTER_WORDS_MIN
        while words * 64 < capacity * _FILTER_BITS_A_KEY:
            words *= 2
        self._words: NDArray[np.uint64] = np.zeros(words, np.uint64)
        self._mask = words - 1
        self._room = words * 64 // _FILTER_BITS_A_KEY

    def is_full(self, more: int) -> bool:
        """Whether so many more keys are too many."""
        return more > self._room

    def add(self, high: NDArray[np.uint64]) -> None:
        """Add keys by their first 8 bytes."""
        place = high & np.uint64(self._mask)
        np.bitwise_or.at(self._words, place.astype(np.int64), _bits(high))
        self._room -= len(high)

    def may_hold(self, key: bytes) -> bool:
        """Return False when the key was certainly not added."""
        high = int.from_bytes(key[:8], "big")
        bits = 1 << (high >> 40 & 63) | 1 << (high >> 46 & 63) | 1 << (high >> 52 & 63) | 1 << (high >> 58 & 63)
        return int(self._words[high & self._mask]) & bits == bits


def _bits(high: NDArray[np.uint64]) -> NDArray[np.uint64]:
    one, low = np.uint64(1), np.uint64(63)
    bits: NDArray[np.uint64] = np.zeros(len(high), np.uint64)
    for shift in (40, 46, 52, 58):
        bits |= one << (high >> np.uint64(shift) & low)
    return bits
