"""The one door for time: a clock the server reads and waits on, and one that tests turn by hand."""

from __future__ import annotations

import asyncio
import time
from heapq import heappop, heappush
from typing import Protocol


class Clock(Protocol):
    """What time it is and a way to wait. Deadlines and durations come from monotonic(); unix_ns() is for people."""

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back, whatever is done to the wall clock."""

    def worked(self) -> float:
        """Return seconds the calling thread has worked; while others had the processor it stands still."""

    def unix_ns(self) -> int:
        """Return nanoseconds since 1970 (UTC) as the wall clock says; may jump."""

    async def sleep_until(self, deadline: float) -> None:
        """Return at monotonic() >= deadline; lets other tasks run at least once."""


ROUNDED_S = 0.0005
"""Timers of an event loop round to the nearest millisecond: so much later they do not fire too early."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Return seconds of the operating system's monotonic clock."""
        return time.monotonic()

    def worked(self) -> float:
        """Return seconds of processor time of the calling thread."""
        return time.thread_time()

    def unix_ns(self) -> int:
        """Return nanoseconds since 1970 (UTC)."""
        return time.time_ns()

    async def sleep_until(self, deadline: float) -> None:
        """Return at monotonic() >= deadline, within about a millisecond on an idle event loop."""
        await asyncio.sleep(0)
        # once more if it was too early all the same; each time is a turn of the event loop more under load
        while (left := deadline - time.monotonic()) > 0:  # noqa: ASYNC110 - it waits for time, not for an event
            await asyncio.sleep(left + ROUNDED_S)


class ManualClock:
    """A clock that stands still until a test advances it."""

    def __init__(self, monotonic: float = 1_000.0, unix_ns: int = 1_700_000_000_000_000_000) -> None:
        self._monotonic = monotonic
        self._unix_ns = unix_ns
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def monotonic(self) -> float:
        """Return the seconds this clock was set to."""
        return self._monotonic

    def worked(self) -> float:
        """Return the seconds this clock was set to: whoever asks has worked all the time."""
        return self._monotonic

    def unix_ns(self) -> int:
        """Return the wall clock's nanoseconds this clock was set to."""
        return self._unix_ns

    async def sleep_until(self, deadline: float) -> None:
        """Return once the clock was advanced to the deadline."""
        await asyncio.sleep(0)
        if deadline > self._monotonic:
            future = asyncio.get_running_loop().create_future()
            self._count += 1
            heappush(self._sleepers, (deadline, self._count, future))
            await future

    def advance(self, seconds: float) -> None:
        """Let so much time pass and wake whoever waited for it, earliest deadline first."""
        self._monotonic += seconds
        self._unix_ns += round(seconds * 1e9)
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            future = heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator would; the monotonic clock does not notice."""
        self._unix_ns += round(seconds * 1e9)

    @property
    def next_deadline(self) -> float | None:
        """The earliest deadline somebody waits for, None when nobody waits."""
        waiting = [deadline for deadline, _, future in self._sleepers if not future.done()]
        return min(waiting, default=None)
