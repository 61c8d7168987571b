"""Finished answers, kept for cache_expiry: asking twice costs once, and so does asking at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple

from server.clock import Clock

ANSWERS_MAX = 256
"""Answers kept at a time; the one asked for longest ago leaves first."""
BYTES_MAX = 8 * 1024 * 1024
"""Bytes of them: a page of 10,000 points has half a megabyte, and 256 of those would be more than the world."""


class _Kept(NamedTuple):
    until: float
    answer: bytes


class AnswerCache:
    """Answers by key. expiry_ms: how long one may be reused, 0 = never. The key must name all the answer depends on.

    Whichever of answers_max and bytes_max is reached first holds; an answer larger than bytes_max is not kept.
    """

    def __init__(
        self, expiry_ms: int, clock: Clock, answers_max: int = ANSWERS_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        self.expiry_s = expiry_ms / 1_000
        self.bytes = 0
        """Of the answers kept."""
        self._clock = clock
        self._answers_max = answers_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._flights: dict[Hashable, asyncio.Task[bytes]] = {}

    @property
    def in_flight(self) -> int:
        """Answers being built for whoever waits for them."""
        return len(self._flights)

    def get(self, key: Hashable, build: Callable[[], bytes]) -> bytes:
        """Return the answer under key, built at most once within the expiry."""
        found = self.find(key)
        return self._keep(key, build()) if found is None else found

    async def get_shared(self, key: Hashable, build: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the answer under key; those who ask while it is being built wait for the same one.

        One who stops waiting stops nobody else. What build raises, all of them get, and nothing is kept.
        """
        found = self.find(key)
        if found is not None:
            return found
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.ensure_future(self._fly(key, build))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Give up what is being built."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def find(self, key: Hashable) -> bytes | None:
        """Return the answer kept under key, None when there is none or it has expired."""
        kept = self._kept.get(key)
        if kept is None or kept.until <= self._clock.monotonic():
            return None
        self._kept.move_to_end(key)
        return kept.answer

    async def _fly(self, key: Hashable, build: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return self._keep(key, await build())
        finally:
            del self._flights[key]

    def _keep(self, key: Hashable, answer: bytes) -> bytes:
        if not self.expiry_s:
            return answer
        self._drop(key)
        if len(answer) <= self._bytes_max:
            self._kept[key] = _Kept(self._clock.monotonic() + self.expiry_s, answer)
            self.bytes += len(answer)
            while len(self._kept) > self._answers_max or self.bytes > self._bytes_max:
                self._drop(next(iter(self._kept)))
        return answer

    def _drop(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= len(kept.answer)
