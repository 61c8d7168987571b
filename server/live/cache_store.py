"""Finished answers by key, each with its expiry: in this process or in Redis, behind one interface.

The engine puts the newest answers of the state into Redis, gateways read them there and keep what they have read in
memory; a server without Redis needs neither. Source: DESIGN D9, D10; specification 004, Memory Cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from server.clock import Clock
from server.redis_door import LOST

BYTES_MAX = 8 * 1024 * 1024
"""Bytes a store in memory keeps; what was asked for longest ago leaves first."""


class StoreAway(Exception):
    """The store cannot be reached now; nothing else is wrong."""


class CacheStore(Protocol):
    """Keeps values for a while."""

    async def put(self, values: Mapping[str, bytes], expiry_ms: int) -> None:
        """Keep values under their keys for so long, 0 = not at all. Raises StoreAway."""

    async def get(self, key: str) -> bytes | None:
        """Return the value under a key, None when there is none or it has expired. Raises StoreAway."""


class MemoryStore:
    """A store in this process, bounded by bytes."""

    def __init__(self, clock: Clock, bytes_max: int = BYTES_MAX) -> None:
        self.bytes = 0
        """Of the values kept."""
        self._clock = clock
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def put(self, values: Mapping[str, bytes], expiry_ms: int) -> None:
        """Keep values; one larger than the whole store is not kept."""
        until = self._clock.monotonic() + expiry_ms / 1_000
        for key, value in values.items():
            self._drop(key)
            if not expiry_ms or len(value) > self._bytes_max:
                continue
            self._kept[key] = (until, value)
            self.bytes += len(value)
            while self.bytes > self._bytes_max:
                self._drop(next(iter(self._kept)))

    async def get(self, key: str) -> bytes | None:
        """Return a value that has not expired."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[0] <= self._clock.monotonic():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= len(kept[1])


class RedisStore:
    """A store that all processes share."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, values: Mapping[str, bytes], expiry_ms: int) -> None:
        """Keep values, all in one exchange."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                put_into(pipeline, values, expiry_ms)
                await pipeline.execute()
        except LOST as error:
            raise StoreAway(str(error)) from error

    async def get(self, key: str) -> bytes | None:
        """Return a value that Redis still has."""
        try:
            value = await self._redis.get(key)
        except LOST as error:
            raise StoreAway(str(error)) from error
        assert value is None or isinstance(value, bytes)  # the client does not decode
        return value


def put_into(pipeline: Pipeline, values: Mapping[str, bytes], expiry_ms: int) -> None:
    """Add to a pipeline what keeps values for so long, 0 = not at all."""
    for key, value in values.items():
        if expiry_ms:
            pipeline.set(key, value, px=expiry_ms)
        else:
            pipeline.delete(key)
