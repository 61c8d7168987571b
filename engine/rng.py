"""Counter-based keyed randomness: a draw is a pure function of (seed, tick, stream, index).

No hidden generator state. Source: ECONOMY A4; the finaliser is MurmurHash3's 32-bit one (Appleby 2011).
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Streams of a tick, in the order of State.keys (ECONOMY A4).
STREAM_RESIDENTS = 1
STREAM_MINDS = 2
STREAM_STRATEGY = 40
STREAM_NEWS = 41
STREAM_EVENTS = 50
STREAMS = (STREAM_RESIDENTS, STREAM_MINDS, STREAM_STRATEGY, STREAM_NEWS, STREAM_EVENTS)

Whole = int | np.uint32 | np.uint64
"""A whole number in [0, 2^64)."""

# Words are multiplied as uint64 and cut: the compiler makes one 32-bit multiplication of it, and the interpreter
# (NUMBA_DISABLE_JIT=1) sees no overflow to warn of.
_WORD = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B9)
_M1 = np.uint64(0x85EBCA6B)
_M2 = np.uint64(0xC2B2AE35)
_S13, _S16 = np.uint32(13), np.uint32(16)


def seed_bytes(seed: int | bytes) -> bytes:
    """Return the 32 seed bytes of a whole number in [0, 2^256), little-endian, or of 32 bytes unchanged."""
    if isinstance(seed, bytes):
        if len(seed) != 32:
            raise ValueError(f"a seed has 32 bytes, got {len(seed)}")
        return seed
    if not 0 <= seed < 1 << 256:
        raise ValueError(f"a seed is a whole number in [0, 2^256), got {seed}")
    return seed.to_bytes(32, "little")


def key(seed: bytes, tick: int, stream: int) -> tuple[int, int]:
    """Return the two 32-bit key words of (tick, stream): the first eight bytes of BLAKE2b-128, little-endian."""
    digest = hashlib.blake2b(seed + struct.pack("<QQ", tick, stream), digest_size=16).digest()
    k0, k1 = struct.unpack_from("<II", digest)
    return k0, k1


def tick_keys(seed: bytes, tick: int, out: NDArray[np.uint32]) -> None:
    """Write the keys of all STREAMS of a tick into out, shape (len(STREAMS), 2)."""
    for row, stream in enumerate(STREAMS):
        out[row] = key(seed, tick, stream)


@njit(inline="always", cache=True)
def mix32(n: Whole) -> np.uint32:
    """Return the 32-bit murmur3 finaliser of n modulo 2^32, n in [0, 2^64); mix32(1) = 0x514E28B7."""
    h = np.uint32(np.uint64(n) & _WORD)
    h = np.uint32(h ^ np.uint32(h >> _S16))
    h = np.uint32((np.uint64(h) * _M1) & _WORD)
    h = np.uint32(h ^ np.uint32(h >> _S13))
    h = np.uint32((np.uint64(h) * _M2) & _WORD)
    return np.uint32(h ^ np.uint32(h >> _S16))


@njit(inline="always")
def sub_stream(k0: np.uint32, k: int) -> np.uint32:
    """Return the first key word of sub-stream +k."""
    return np.uint32((np.uint64(k0) + np.uint64(k)) & _WORD)


@njit(inline="always")
def draw(index: int, k0: np.uint32, k1: np.uint32) -> np.uint32:
    """Return the 32-bit draw of an index in [0, 2^32) under the key (k0, k1)."""
    return mix32(mix32(np.uint64(index) * _GOLDEN + np.uint64(k0)) ^ np.uint32(k1))


@njit(inline="always")
def normal_units(h: np.uint32) -> int:
    """Return the sum of the four bytes of h - 510: an integer of mean 0 and sd 147.8."""
    low = np.int64(h & np.uint32(255)) + np.int64((h >> np.uint32(8)) & np.uint32(255))
    return int(low + np.int64((h >> _S16) & np.uint32(255)) + np.int64(h >> np.uint32(24)) - 510)


@njit(inline="always")
def normal(h: np.uint32) -> float:
    """Return a nearly normal number of mean 0 and sd 1: normal_units(h) / 147.8."""
    return normal_units(h) / 147.8
