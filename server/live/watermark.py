"""A number that only grows, and who waits for it to arrive somewhere: coroutines, and functions that are called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush

Called = Callable[[Exception | None], None]
"""What is called when a number has arrived; with an error when that cannot happen any more. It must not raise."""


class Watermark:
    """A number that only grows: the last durable record, the last published tick. For one event loop's thread."""

    def __init__(self, value: int) -> None:
        self.value = value
        self._error: Exception | None = None
        self._waiting: list[tuple[int, int, Called]] = []
        self._count = 0

    async def reached(self, value: int) -> None:
        """Return when the number is at least value; raise what fail() was given once that cannot happen any more."""
        if self.value >= value:
            return
        future = asyncio.get_running_loop().create_future()
        self.when_reached(value, partial(_settle, future))
        await future

    def when_reached(self, value: int, called: Called) -> None:
        """Have a function called once the number is at least value: at once, from rise() or from fail()."""
        if self.value >= value:
            called(None)
        elif self._error is not None:
            called(_anew(self._error))
        else:
            self._count += 1
            heappush(self._waiting, (value, self._count, called))

    def rise(self, value: int) -> None:
        """Set the number and wake who waited for it; a lower one than now changes nothing."""
        self.value = max(self.value, value)
        while self._waiting and self._waiting[0][0] <= self.value:
            heappop(self._waiting)[2](None)

    def fail(self, error: Exception) -> None:
        """Raise error in everybody who waits, and in everybody who will wait for more than the number is."""
        self._error = error
        while self._waiting:
            heappop(self._waiting)[2](_anew(error))


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # its task was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _anew(error: Exception) -> Exception:
    """Return an error like it: one object raised in thousands of tasks would collect all their tracebacks."""
    return type(error)(*error.args)
