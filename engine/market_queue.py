"""The market queue: accepted actions waiting for the next tick, in arrival order, bounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.errors import QueueFull
from engine.messages import ACTION


class MarketQueue:
    """Preallocated rows that are filled by extend and handed over by drain.

    Two buffers take turns: what drain returned stays as it is until the next drain. capacity: actions, at least 1.
    drains: how often it was handed over; drained: how many actions the last time.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.drains = self.drained = 0
        self._filling: NDArray[np.void] = np.zeros(capacity, ACTION)
        self._drained: NDArray[np.void] = np.zeros(capacity, ACTION)
        self._bytes = self._filling.view(np.uint8).data
        self._count = 0

    def __len__(self) -> int:
        """Return how many actions wait."""
        return self._count

    @property
    def room(self) -> int:
        """How many more may wait."""
        return self.capacity - self._count

    def extend(self, rows: NDArray[np.void]) -> None:
        """Copy actions, dtype ACTION, behind those that wait. Raises QueueFull when not all of them have room."""
        if len(rows) > self.room:
            raise QueueFull(f"{self._count} actions wait for the next tick already, {self.capacity} may")
        self._put(np.ascontiguousarray(rows).view(np.uint8).data, len(rows))

    def add(self, row: bytes) -> None:
        """Put one action, bytes of dtype ACTION, behind those that wait. Raises QueueFull when there is no room."""
        if self._count >= self.capacity:
            raise QueueFull(f"{self._count} actions wait for the next tick already, as many as may")
        self._put(row, 1)

    def drain(self) -> NDArray[np.void]:
        """Return all waiting actions, oldest first, and wait for new ones. Valid until the next drain."""
        rows = self._filling[: self._count]
        self._filling, self._drained = self._drained, self._filling
        self._bytes = self._filling.view(np.uint8).data
        self.drained, self._count = self._count, 0
        self.drains += 1
        return rows

    def _put(self, rows: bytes | memoryview, count: int) -> None:
        # as bytes: assigning to rows of an array takes ten times as long for one of them
        begin = self._count * ACTION.itemsize
        self._bytes[begin : begin + len(rows)] = rows
        self._count += count
