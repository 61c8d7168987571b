"""The market queue: accepted actions waiting for the next tick, in arrival order, bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import QueueFull
from engine.messages import ACTION


class MarketQueue:
    """Preallocated rows that are filled by append and handed over by drain.

    Two buffers take turns: what drain returned stays as it is until the next drain. capacity: actions, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self._filling: NDArray[np.void] = np.zeros(capacity, ACTION)
        self._drained: NDArray[np.void] = np.zeros(capacity, ACTION)
        self._count = 0

    def __len__(self) -> int:
        """Return how many actions wait."""
        return self._count

    def append(self, row: NDArray[np.void] | np.void | Any) -> None:
        """Copy one action, dtype ACTION, behind those that wait. Raises QueueFull when there is no room."""
        if self._count == self.capacity:
            raise QueueFull(f"{self.capacity} actions wait for the next tick already")
        self._filling[self._count : self._count + 1] = row
        self._count += 1

    def drain(self) -> NDArray[np.void]:
        """Return all waiting actions, oldest first, and wait for new ones. Valid until the next drain."""
        rows = self._filling[: self._count]
        self._filling, self._drained = self._drained, self._filling
        self._count = 0
        return rows
