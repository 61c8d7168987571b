"""Answers of the state at a gateway: from memory, from Redis, from the engine; old ones, with their age, without it.

An answer is kept in memory as long as no newer tick has come, so a thousand readers of a tick cost one look into
Redis. What is asked with a key goes to the engine, which alone counts a key's requests and knows that it is valid.
Source: DESIGN D10, section 3; specification 004, Redis for hot data caching.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import orjson
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from engine.markets import NAMES
from server import redis_keys
from server.clock import Clock
from server.gateway.forward import Forwarder, engine_away
from server.live.cache_store import MemoryStore, RedisStore, StoreAway
from server.live.hub import Hub
from server.metrics import Metrics
from server.registry import Operation
from server.routes import Call, shared_response
from server.routes.economy import market_id

STALE_S = 300
"""An answer is given for so long while the engine is away, with its age."""
KEEP_S = 0.5
"""Longest for all that Redis has of the engine; what comes later is kept too."""


class Kept(NamedTuple):
    """An answer. version: what its ETag begins with."""

    tick: int
    version: str
    body: bytes


class Reads:
    """Answers of the state for clients without a key.

    away_s: says for how long the engine has been away, None while it is there. has_redis: whether Redis is heard of:
    one that stands still would keep every reader waiting.
    """

    def __init__(
        self,
        hub: Hub,
        redis: Redis,
        forwarder: Forwarder,
        away_s: Callable[[], float | None],
        has_redis: Callable[[], bool],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._hub = hub
        self._shared = RedisStore(redis)
        self._own = MemoryStore(clock)
        self._forwarder = forwarder
        self._away_s = away_s
        self._has_redis = has_redis
        self._metrics = metrics
        self._asking: dict[str, asyncio.Task[Kept | None]] = {}

    async def answer(self, call: Call, path: str) -> Response:
        """Answer a read of a path that is kept. Raises Problem 503 when there is no answer to be had."""
        own = await self._in_memory(path)
        if (away_s := self._away_s()) is not None:
            return await self._old(call, path, own, away_s)
        if own is not None and self._is_new(own):
            return self._respond(call, own, "memory")
        found = await self._look_up(path) if self._has_redis() else None
        if found is not None and self._is_new(found):
            return self._respond(call, found, "redis")
        return await self._from_engine(call, path)

    async def keep_all(self) -> None:
        """Take every answer that Redis still has into memory, as far as it gives them at once: the engine is away."""
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEP_S):
                for path in PATHS:
                    await self._look_up(path)

    async def _in_memory(self, path: str) -> Kept | None:
        return _read(await self._own.get(self._key(path)))

    def _is_new(self, kept: Kept) -> bool:
        return kept.tick >= (self._hub.tick or 0)

    async def _look_up(self, path: str) -> Kept | None:
        """Return what Redis has, looking once for all who ask meanwhile."""
        looking = self._asking.get(path)
        if looking is None:
            looking = self._asking[path] = asyncio.create_task(self._look(path))
            looking.add_done_callback(lambda _: self._asking.pop(path))
        return await asyncio.shield(looking)

    async def _look(self, path: str) -> Kept | None:
        key = self._key(path)
        try:
            value = await self._shared.get(key)
        except StoreAway:
            return None
        kept = _read(value)
        own = await self._in_memory(path)
        if value is not None and kept is not None and (own is None or own.tick < kept.tick):
            await self._own.put({key: value}, STALE_S * 1_000)
        return kept

    async def _old(self, call: Call, path: str, own: Kept | None, away_s: float) -> Response:
        found = own or await self._look_up(path)
        if found is None or away_s > STALE_S:
            raise engine_away("the engine is away, and no answer of before is kept")
        response = self._respond(call, found, "stale")
        # by ticks and by this machine's clock alone: the engine's may differ
        behind_s = ((self._hub.tick or found.tick) - found.tick) * self._hub.tick_rate_ms / 1_000
        response.headers["Age"] = str(int(away_s + behind_s))
        return response

    async def _from_engine(self, call: Call, path: str) -> Response:
        answer = await self._forwarder.ask(call.request)
        self._metrics.gateway_reads.labels("engine").inc()
        return self._forwarder.respond(call.request, answer)

    def _respond(self, call: Call, kept: Kept, source: str) -> Response:
        self._metrics.gateway_reads.labels(source).inc()
        return shared_response(call, lambda: kept.body, kept.version)

    def _key(self, path: str) -> str:
        return redis_keys.answer(self._hub.epoch, path)


#: What the engine puts into Redis.
PATHS = (
    "/api/indicators", "/api/psychology", "/api/monetary", "/api/scarcity", "/api/markets",
    *(f"/api/markets/{name}" for name in NAMES),
)  # fmt: skip


def kept_path(operation: Operation, request: Request) -> str | None:
    """Return the path under which the answer to a request is kept, None for one that only the engine can answer.

    Raises Problem 404 for a market that does not exist.
    """
    if operation.name not in _KEPT or request.url.query:
        return None
    if operation.name == "market":
        return f"/api/markets/{NAMES[market_id(request.path_params['id'])]}"
    return operation.path


_KEPT = frozenset({"indicators", "psychology", "monetary", "scarcity", "markets", "market"})


def _read(value: bytes | None) -> Kept | None:
    if value is None:
        return None
    about, _, body = value.partition(b"\n")
    told = orjson.loads(about)
    return Kept(told["tick"], told["version"], body)
