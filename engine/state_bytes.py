"""The bytes a state hash is taken over, in one block that is written again for each hash."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.state import LAYOUT_VERSION, ORDER_COUNT, SLOTS_USED, State, persistent

_START = struct.Struct("<qq")


class StateBytes:
    """Copies what hash_arrays reads of a world, for a hash that is taken beside the next ticks.

    A copy in new arrays often costs their pages again (100,000 residents: 0.2 or 2.6 ms, here 0.12), and hashing a
    hundred arrays takes the interpreter's lock a hundred times from whoever computes the ticks; one block takes it
    once.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._lengths: tuple[int, int] | None = None
        self._memory = np.zeros(0, np.uint8)
        self._block = self._memory
        self._parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
        """Where each array goes, and the array."""

    def take(self) -> memoryview:
        """Return the bytes of the world after its last tick; the next call overwrites them."""
        counters = self._state.counters
        lengths = int(counters[SLOTS_USED]), int(counters[ORDER_COUNT])
        if lengths != self._lengths:
            self._lengths = lengths
            self._lay_out()
        _START.pack_into(self._block.data, 0, LAYOUT_VERSION, self._state.tick)
        for place, array in self._parts:
            place[...] = array
        return self._block.data

    def _lay_out(self) -> None:
        """Lay a block out for arrays of the present lengths; what hash_arrays puts before each is in it already.

        In the memory of the one before, which has some to spare: orders come and go with every tick, the holdings of
        100,000 outside agents alone are 26 MB, and new memory of that size is mapped and cleared each time.
        """
        heads = [struct.pack(f"<{len(name)}sQ", name.encode(), array.size) for name, array in persistent(self._state)]
        arrays = [array for _, array in persistent(self._state)]
        size = _START.size + sum(map(len, heads)) + sum(array.nbytes for array in arrays)
        if size > len(self._memory):
            self._memory = np.zeros(size + size // 8, np.uint8)
        self._block = self._memory[:size]
        self._parts = []
        end = _START.size
        for head, array in zip(heads, arrays, strict=True):
            self._block[end : end + len(head)] = np.frombuffer(head, np.uint8)
            end += len(head)
            little = array.dtype.newbyteorder("<")
            self._parts.append((np.ndarray(array.shape, little, self._block.data, end), array))
            end += array.nbytes


def hash_bytes(data: memoryview) -> bytes:
    """Return the state hash of what StateBytes.take gave; safe in another thread until it is called again."""
    return hashlib.blake2b(data, digest_size=16).digest()
