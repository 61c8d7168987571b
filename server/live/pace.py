"""How fast batches may fill the queue of a tick: at once, unless more come than fits into one."""

from __future__ import annotations

from engine.market_queue import MarketQueue
from server.clock import Clock

FULL_SHARE = 0.9
"""A tick that took so much of what fits into one had no room for more; a paced one does not fill to the last action."""
AT_ONCE_SHARE = 0.1
"""Of the room, open when the tick before has taken its actions."""
OPEN_SHARE = 0.75
"""Of a period, after which all of the room is open."""
FLOODED_TICKS = 20
"""Ticks with room in a row after which a flood is over. Behind a pause of the server a tick of a flood has some room,
and batches were let in to wait for as long as those of a crowd: the 99th percentile of acknowledgements was 97 ms."""


class Pace:
    """Opens the room of a tick to batches bit by bit when the tick before was full. period: seconds between ticks.

    With four times as many as fit, whoever came first filled a tick in a third of its time. All of that waited in one
    heap for the processor and the disk, and nobody who came later, single actions among them, found any room.
    """

    def __init__(self, queue: MarketQueue, period: float, clock: Clock) -> None:
        self._queue = queue
        self._period = period
        self._clock = clock
        self._drains = 0
        self._began = 0.0
        self._is_open = True
        self._newest_full = -FLOODED_TICKS
        """When a full tick was taken the last time, counted in drains."""

    @property
    def is_flooded(self) -> bool:
        """Whether one of the last FLOODED_TICKS was full, as far as has been asked."""
        return self._drains - self._newest_full < FLOODED_TICKS

    def wait_s(self) -> float:
        """Return how long until a batch may take some of the room, 0 when it may now."""
        queue, now = self._queue, self._clock.monotonic()
        if queue.drains != self._drains:
            self._drains, self._began = queue.drains, now
            self._is_open = queue.drained < FULL_SHARE * queue.capacity
            if not self._is_open:
                self._newest_full = queue.drains
        if self._is_open:
            return 0.0
        taken = len(queue) / queue.capacity
        opens = self._began + self._period * OPEN_SHARE * (taken - AT_ONCE_SHARE) / (1 - AT_ONCE_SHARE)
        return max(0.0, opens - now)
