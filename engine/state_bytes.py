"""The bytes a state hash is taken over, in one block that is written again for each hash or snapshot."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import copy_at_once
from engine.state import LAYOUT_VERSION, ORDER_COUNT, SLOTS_USED, State, persistent

_START, _HEAD = struct.Struct("<qq"), struct.Struct("<Q")


class StateBytes:
    """Copies what hash_arrays reads of a world, for a hash or a snapshot that is taken beside the next ticks.

    A copy in new arrays often costs their pages again (100,000 residents: 0.2 or 2.6 ms, here 0.12; with as many
    outside agents, 65 MB, a tick stood still for 100 to 180 ms), and hashing a hundred arrays takes the interpreter's
    lock a hundred times from whoever computes the ticks; one block takes it once.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._lengths: tuple[int, int] | None = None
        # as much as the largest world of these sizes needs; of what is not written to nothing is resident
        size = _START.size + sum(_HEAD.size + len(name) + getattr(state, name).nbytes for name, _ in persistent(state))
        self._memory = np.zeros(size, np.uint8)
        self._block = self._memory
        self._names: list[str] = []
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
        copy_at_once(self._parts)
        return self._block.data

    def arrays(self) -> list[tuple[str, NDArray[Any]]]:
        """Return what was taken, as Economy.copy_arrays does; the next call of take overwrites it."""
        return [(name, place) for name, (place, _) in zip(self._names, self._parts, strict=True)]

    def _lay_out(self) -> None:
        """Lay a block out for arrays of the present lengths; what hash_arrays puts before each is in it already.

        In the memory of the one before: orders come and go with every tick, the holdings of 100,000 outside agents
        alone are 26 MB, and new memory of that size is mapped and cleared each time.
        """
        self._names, self._parts = [], []
        end = _START.size
        for name, array in persistent(self._state):
            head = name.encode() + _HEAD.pack(array.size)
            self._memory[end : end + len(head)] = np.frombuffer(head, np.uint8)
            end += len(head)
            # in the machine's order of bytes, which is the hash's: numba compiles for no other machines
            self._names.append(name)
            self._parts.append((np.ndarray(array.shape, array.dtype, self._memory.data, end), array))
            end += array.nbytes
        self._block = self._memory[:end]


def hash_bytes(data: memoryview) -> bytes:
    """Return the state hash of what StateBytes.take gave; safe in another thread until it is called again."""
    return hashlib.blake2b(data, digest_size=16).digest()
