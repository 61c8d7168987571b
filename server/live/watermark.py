"""A number that only grows, and the coroutines that wait for it to arrive somewhere."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush


class Watermark:
    """A number that only grows: the last durable record, the last published tick. For one event loop's thread."""

    def __init__(self, value: int) -> None:
        self.value = value
        self._error: Exception | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    async def reached(self, value: int) -> None:
        """Return when the number is at least value; raise what fail() was given once that cannot happen any more."""
        if self.value >= value:
            return
        if self._error is not None:
            raise _anew(self._error)
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heappush(self._waiting, (value, self._count, future))
        await future

    def rise(self, value: int) -> None:
        """Set the number and wake who waited for it; a lower one than now changes nothing."""
        self.value = max(self.value, value)
        while self._waiting and self._waiting[0][0] <= self.value:
            future = heappop(self._waiting)[2]
            if not future.done():  # its task was cancelled
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Raise error in everybody who waits, and in everybody who will wait for more than the number is."""
        self._error = error
        for _, _, future in self._waiting:
            if not future.done():
                future.set_exception(_anew(error))
        self._waiting.clear()


def _anew(error: Exception) -> Exception:
    """Return an error like it: one object raised in thousands of tasks would collect all their tracebacks."""
    return type(error)(*error.args)
