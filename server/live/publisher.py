"""The engine's side of gateways: every tick's frames and answers go to Redis, and no tick ever waits for it.

A publisher is a subscriber of the hub that stands at what it published last. Redis slow: the next bundle is longer.
Redis gone: what was not taken is dropped and counted, gateways notice by sequence numbers and ask the engine itself.
Source: DESIGN D10, R10.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import structlog
from redis.asyncio import Redis

from engine.markets import MARKETS, NAMES
from server import keys, redis_keys
from server.clock import Clock
from server.live import relay
from server.live.cache_store import put_into
from server.live.hub import Hub
from server.live.view import Published, View
from server.metrics import Metrics
from server.redis_door import LOST

BEAT_S: Final = 0.25
"""A bundle is sent so often at least, also when the world stands still: it says that the engine is there."""
RETRY_S: Final = (0.1, 2.0)
"""First and longest wait after a failure."""
REVOKED_KEPT: Final = 256
"""Revoked keys every bundle names; a gateway that missed more of them asks for all its keys."""

log = structlog.get_logger("arena.redis")


class Relayed:
    """What gateways are told beside frames: which keys were revoked, whether the engine is about to stop."""

    def __init__(self, tick_rate_ms: int) -> None:
        self.is_closing = False
        self.tick_rate_ms = tick_rate_ms
        self._instance = keys.instance()
        self._revoked_count = 0
        self._revoked: deque[bytes] = deque(maxlen=REVOKED_KEPT)

    def revoke(self, key_hash: bytes) -> None:
        """Take note that a key opens nothing any more."""
        self._revoked_count += 1
        self._revoked.append(key_hash)

    def members(self) -> dict[str, Any]:
        """Return what a bundle carries of it."""
        return {
            "tick_rate_ms": self.tick_rate_ms,
            "is_closing": self.is_closing,
            "instance": self._instance,
            "revoked_count": self._revoked_count,
            "revoked": list(self._revoked),
        }


class Publisher:
    """Brings what is published to Redis. `publish` and `close` only say that there is something; `run` does it.

    expiry_ms: of the answers; they are put there anew when half of it is over, in a world that stands still too.
    """

    def __init__(
        self,
        redis: Redis,
        hub: Hub,
        published: Published,
        relayed: Relayed,
        *,
        expiry_ms: int,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.is_connected = False
        self.failures = 0
        """Bundles that were not taken."""
        self._redis = redis
        self._hub = hub
        self._published = published
        self._relayed = relayed
        self._expiry_ms = expiry_ms
        self._metrics = metrics
        self._clock = clock
        self._positions: Mapping[str, int | None] = relay.positions(hub)
        self._tick = published.view.tick
        self._answered: int | None = None
        """Tick of the answers that were taken last."""
        self._answered_at = 0.0
        self._news = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def state(self) -> str:
        """How Redis is: connected or lost."""
        return "connected" if self.is_connected else "lost"

    def publish(self, view: View) -> None:
        """Take note that a tick was published, its frames made."""
        self._news.set()

    def close(self) -> None:
        """Tell gateways that the engine stops, and let `run` return."""
        self._relayed.is_closing = True
        self._closed.set()
        self._news.set()

    async def run(self) -> None:
        """Publish until closed."""
        wait_s, is_last = RETRY_S[0], False
        try:
            while not is_last:
                await self._wait(self._news, BEAT_S)
                self._news.clear()
                # closed while something is being sent: that it was closed is sent after it
                is_last = self._closed.is_set()
                if await self._send():
                    wait_s = RETRY_S[0]
                elif not is_last:
                    await self._wait(self._closed, wait_s)
                    wait_s = min(2 * wait_s, RETRY_S[1])
        finally:
            await self._redis.aclose()

    async def _wait(self, event: asyncio.Event, limit_s: float) -> None:
        """Wait for an event, so long at most."""
        late = asyncio.ensure_future(self._clock.sleep_until(self._clock.monotonic() + limit_s))
        happened = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((late, happened), return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
            happened.cancel()

    async def _send(self) -> bool:
        """Send what there is now; return whether it was taken."""
        began, view = self._clock.monotonic(), self._published.view
        ticks, self._tick = view.tick - self._tick, view.tick
        standing, self._positions = self._positions, relay.positions(self._hub)
        message = relay.bundle(self._hub, standing, self._relayed.members())
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                is_due = view.tick != self._answered or began - self._answered_at >= self._expiry_ms / 2_000
                if is_due:
                    # ahead of the frames: whoever has seen a tick can read it
                    put_into(pipeline, answers(view), self._expiry_ms)
                pipeline.publish(redis_keys.ticks(self._hub.epoch), message)
                await pipeline.execute()
            if is_due:
                self._answered, self._answered_at = view.tick, began
        except Exception as error:
            # one subscriber's writer: whatever goes wrong here is said, counted, and nobody else's to notice
            if not isinstance(error, LOST):
                log.exception("redis_failed")
            self._note(is_connected=False, error=error)
            return False
        self._note(is_connected=True)
        self._metrics.redis_bundles.labels("late" if ticks > 1 else "published").inc()
        self._metrics.redis_seconds.observe(self._clock.monotonic() - began)
        return True

    def _note(self, *, is_connected: bool, error: Exception | None = None) -> None:
        if error is not None:
            self.failures += 1
            self._metrics.redis_bundles.labels("failed").inc()
        if is_connected != self.is_connected:
            self.is_connected = is_connected
            self._metrics.redis_up.set(int(is_connected))
        elif error is None or self.failures > 1:
            return
        if error is None:
            log.info("redis_connected")
        else:
            log.warning("redis_lost", error=str(error), hint="gateways ask the engine directly; nothing is lost")


def answers(view: View) -> dict[str, bytes]:
    """Return the answers of a view by their key in Redis: one line of JSON about each, then its bytes."""
    renders: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/api/indicators": ("indicators", view.indicators),
        "/api/psychology": ("psychology", view.psychology),
        "/api/monetary": ("monetary", view.monetary),
        "/api/scarcity": ("scarcity", view.scarcity),
        "/api/markets": (f"0-{MARKETS}", view.markets),
    }
    for m, name in enumerate(NAMES):
        renders[f"/api/markets/{name}"] = (f"m{m}", lambda m=m: view.market(m))  # type: ignore[misc]  # bound at once
    return {
        redis_keys.answer(view.epoch, path): pack_answer(view, version, render())
        for path, (version, render) in renders.items()
    }


def pack_answer(view: View, version: str, body: bytes) -> bytes:
    """Return an answer as it is kept. version: what its ETag begins with, without epoch and tick."""
    about = {"tick": view.tick, "version": f"{view.epoch}-{view.tick}-{version}"}
    return orjson.dumps(about) + b"\n" + body
